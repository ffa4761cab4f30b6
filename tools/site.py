"""Build the documentation as a site: `python tools/site.py OUTPUT`, or `nox -s site`.

Needs zensical and mkdocstrings-python.

The pages are those of docs/, in the order of docs/index.md, which is the one list of them; the files at the top of the
repository that they link to become pages as well. A link that leads nowhere, or a name without a docstring page, ends
the build.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOP = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def build(output: Path) -> None:
    """Lay the sources out in a temporary folder, build there, and put the site in place of `output`.

    Raises:
        subprocess.CalledProcessError: the build told a warning or an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        stage = Path(folder)
        shutil.copytree(ROOT / "docs", stage / "docs")
        for name in TOP:
            shutil.copy(ROOT / name, stage / "docs" / name.lower())
        for page in (stage / "docs").rglob("*.md"):
            page.write_text(_keep_links_inside(page, stage / "docs"), encoding="utf-8")
        (stage / "src").symlink_to(ROOT / "src")
        settings = (ROOT / "tools" / "site.toml").read_text(encoding="utf-8")
        navigation = write_navigation((ROOT / "docs" / "index.md").read_text(encoding="utf-8"))
        (stage / "zensical.toml").write_text(settings.replace("nav = []", f"nav = {navigation}"), encoding="utf-8")
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
        subprocess.run(command, cwd=stage, check=True)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(stage / "site", output)


def write_navigation(index: str) -> str:
    """The pages that an index links to, by its headings and, below them, by folder, as an inline table of TOML."""
    parts = [f'{{ "Start" = ["index.md"{"".join(f", {each}" for each in _entries(_section(index, "Learn")))}] }}']
    for heading in re.findall(r"^## (.+)$", index, re.MULTILINE)[1:]:
        parts.append(f'{{ "{heading}" = [{", ".join(_groups(_section(index, heading)))}] }}')
    return f"[{', '.join(parts)}]"


def _section(index: str, heading: str) -> str:
    return re.split(r"^## ", index.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def _groups(section: str) -> list[str]:
    """Entries of a section; paragraphs that begin "For the X" are groups named X."""
    entries: list[str] = []
    for paragraph in re.split(r"\n\s*\n", section.strip()):
        named = re.match(r"For the ([\w ]+),", paragraph)
        inner = _entries(paragraph)
        entries += [f'{{ "{named[1].capitalize()}" = [{", ".join(inner)}] }}'] if named and inner else inner
    return entries


def _entries(text: str) -> list[str]:
    return [
        f'{{ "{title[0].upper()}{title[1:]}" = "{target.lower() if target.startswith("../") else target}" }}'.replace(
            "../", ""
        )
        for title, target in LINK.findall(text)
    ]


def _keep_links_inside(page: Path, docs: Path) -> str:
    """The page's text, with links out of the folder led to the copies of such files, or taken off."""

    def lead(match: re.Match[str]) -> str:
        title, target = match.groups()
        path, hash_, anchor = target.partition("#")
        place = (page.parent / path).resolve()
        if re.match(r"[a-z]+:", target) or not path or place.is_relative_to(docs):
            return match[0]
        if place.name in TOP:
            up = "../" * len(page.parent.relative_to(docs).parts)
            return f"[{title}]({up}{place.name.lower()}{hash_}{anchor})"
        return title

    text = page.read_text(encoding="utf-8")
    if page.parent == docs and page.name in map(str.lower, TOP):  # its links were those of the top folder
        text = re.sub(r"\]\(docs/", "](", text)
    return LINK.sub(lead, text)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
