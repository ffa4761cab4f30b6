"""What annotations say: options of constructors, checks in sentences of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Len, Lt

from seqrl.errors import ConfigError, PluginError
from seqrl.schema import check_value, describe, json_schema, options_of

if TYPE_CHECKING:
    from pathlib import Path

Share = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True)
class Part:
    size: Annotated[int, Ge(1)]
    share: Annotated[float, Interval(ge=0, le=1)] = 0.5


@dataclass(frozen=True)
class Whole:
    count: Annotated[int, Ge(1)] = 1
    on: bool = True
    pair: tuple[Share, Share] = (0.9, 0.95)
    part: Part | None = None
    parts: Mapping[Literal["left", "right"], Part | None] = field(default_factory=dict)
    mode: Literal["fast", "slow"] | None = "fast"
    names: Annotated[Sequence[str], Len(1)] = ("a",)
    rate: Annotated[float, Gt(0)] | None = None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": "1e3"}, r"^count='1e3' is no whole number; give 1 or more$"),
        ({"count": 0}, r"^count=0 is too small; give 1 or more$"),
        ({"count": True}, r"^count=true is no whole number"),
        ({"count": 1.0}, r"^count=1\.0 is no whole number"),
        ({"count": None}, r"^count=null is no whole number"),
        ({"on": 1}, r"^on=1 is neither true nor false; give true or false$"),
        ({"pair": [0.9, 1.0]}, r"^pair=\[0\.9, 1\.0\] does not fit; give a list of 2: 0 or more and less than 1, "),
        ({"pair": [0.9]}, r"^pair=\[0\.9\] does not fit"),
        ({"part": {}}, r"^part\.size is not set; give 1 or more$"),
        ({"part": 3}, r"^part=3 is no set of options; give \{size: \.\.\., share: \.\.\.\}, or null$"),
        (
            {"part": {"size": 1, "shaer": 1}},
            r"^there is no setting 'part\.shaer'\. Did you mean 'part\.share'\? Settings",
        ),
        ({"part": {"size": 1, "share": 2}}, r"^part\.share=2 is too large; give a number from 0 to 1$"),
        ({"parts": {"left": {"size": "ü"}}}, r"^parts\.left\.size='ü' is no whole number"),
        ({"parts": {"lefd": None}}, r"^there is no setting 'parts\.lefd'\. Did you mean 'parts\.left'\?"),
        ({"mode": "fats"}, r"^mode='fats' is unknown\. Did you mean 'fast'\? Choices: fast or slow, or null$"),
        ({"names": "abc"}, r"^names='abc' is no list"),
        ({"names": []}, r"^names=\[\] does not fit; give a list of 1 or more, each a text$"),
        ({"rate": float("nan")}, r"^rate=nan is no number; give more than 0, or null$"),
        ({"raet": 1}, r"^there is no setting 'raet'\. Did you mean 'rate'\? Settings: count, on, "),
    ],
)
def test_what_is_wrong_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_value("", given, Whole)


def test_whole_numbers_stand_for_others_and_lists_for_tuples() -> None:
    whole = check_value("", {"rate": 3, "pair": [0, 0.5], "part": {"size": 2}}, Whole)
    assert whole == Whole(rate=3.0, pair=(0.0, 0.5), part=Part(2))
    assert isinstance(whole.rate, float)


class Described:
    def __init__(self, hidden: Path, free=None, *, width: Annotated[int, Ge(1)] = 4, name: str | None = None):  # type: ignore[no-untyped-def]
        del hidden, free, width, name


def test_options_are_what_annotations_say_and_what_is_left_out_may_be_unknown() -> None:
    free, width, name = options_of(Described, leave_out=("hidden",))
    assert (free.annotation, free.default) == (Any, None)
    assert (describe(width.annotation), str(width)) == ("1 or more", "width=4")
    assert describe(name.annotation) == "a text, or null"


def test_a_name_that_only_type_checkers_know_is_refused_by_option() -> None:
    with pytest.raises(PluginError, match=r"annotation 'Path' of option 'hidden' cannot be resolved .*; define or imp"):
        options_of(Described)


def test_the_json_schema_holds_ranges_and_refuses_other_keys() -> None:
    schema = json_schema(Whole)
    assert schema["properties"]["count"] == {"default": 1, "minimum": 1, "title": "Count", "type": "integer"}
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Part"]["additionalProperties"] is False
