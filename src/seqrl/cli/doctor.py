"""`seqrl doctor`: what this machine and this installation have, and what is missing for what."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from seqrl import plugins
from seqrl.cli.telling import tell_errors
from seqrl.console import one_line, print_table, say
from seqrl.errors import SeqrlError, sentence
from seqrl.files import hold_lock
from seqrl.opengl import BACKENDS, INSTALL, LIBRARIES, PACKAGES
from seqrl.paths import cache_dir, data_dir
from seqrl.processes import bound_command, safe_environment

Verdict = Literal["ok", "missing", "wrong"]
_USES = {  # of the optional parts
    "joblib": "sweeps in several processes: hydra/launcher=joblib",
    "submitit": "sweeps on a cluster: hydra/launcher=submitit_slurm",
    "ray": "sweeps with ray: hydra/launcher=ray",
    "optuna": "search: hydra/sweeper=optuna",
    "wandb": "training.loggers=[csv,wandb]",
    "mlflow": "training.loggers=[csv,mlflow]",
    "onnx": "seqrl export --onnx",
    "minari": "data=minari",
    "hf": "backbone=hf, decoders of transformers",
    "ogbench": "environments of data=ogbench",
}
_WAIT = 60  # seconds for a frame, or a cluster's answer


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, and what the user may do.

    Attributes:
        verdict: `missing` where something else does without it, `wrong` where seqrl cannot work as it is.
    """

    what: str
    verdict: Verdict
    found: str


@tell_errors()
def run(arguments: list[str]) -> int:
    """Run the command; returns 1 where something is wrong that seqrl needs."""
    parser = argparse.ArgumentParser(
        "seqrl doctor",
        description="Versions, devices, caches, OpenGL, clusters: what this machine has, and what is missing for what. "
        "Exit status 1 where something is wrong that seqrl needs.",
    )
    parser.parse_args(arguments)
    return report(LOOKS)


def report(looks: Iterable[Callable[[], Iterable[Finding]]]) -> int:
    """Print what each look finds; 1 where something is wrong that seqrl needs, else 0."""
    findings: list[Finding] = []
    for look in looks:
        try:
            findings.extend(look())
        except Exception as error:  # one broken library must not hide the others
            reason = sentence(error) if isinstance(error, SeqrlError) else f"{type(error).__name__}: {error}"
            findings.append(Finding(look.__name__.removeprefix("find_"), "wrong", reason))
    print_table(["what", "", "found"], [[each.what, each.verdict, one_line(each.found)] for each in findings], words=3)
    wrong = [each for each in findings if each.verdict == "wrong"]
    for each in wrong:
        say(f"wrong: {each.what}: {one_line(each.found)}")
    if not wrong:
        say("nothing is wrong that seqrl needs")
    return 1 if wrong else 0


def find_versions() -> Iterator[Finding]:
    yield Finding("seqrl", "ok", f"{version('seqrl')}, Python {platform.python_version()}, {platform.platform()}")
    for text in requires("seqrl") or []:
        needed = Requirement(text)
        extra = _extra_of(needed)
        name = needed.name if extra is None else f"{needed.name} [{extra}]"
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            if extra is None:
                yield Finding(name, "wrong", f"not installed; pip install '{needed.name}{needed.specifier}'")
            else:
                yield Finding(name, "missing", f"for {_USES.get(extra, extra)}; pip install 'seqrl[{extra}]'")
            continue
        fits = needed.specifier.contains(found, prereleases=True)
        wanted = f"{found}, and {needed.specifier} is needed; pip install '{needed.name}{needed.specifier}'"
        yield Finding(name, "ok" if fits else "wrong" if extra is None else "missing", found if fits else wanted)


def _extra_of(needed: Requirement) -> str | None:
    """The optional part that a requirement belongs to; None for what seqrl always needs."""
    if needed.marker is None or needed.marker.evaluate({"extra": ""}):
        return None
    return next((extra for extra in (*_USES, "all") if needed.marker.evaluate({"extra": extra})), "another part")


def find_processor() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    capability = torch.backends.cpu.get_cpu_capability()
    found = f"{cores} cores, {capability}, {torch.get_num_threads()} threads, {memory:.0f} GiB of memory"
    yield Finding("processor", "ok", found)


def find_devices() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            half = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            memory = properties.total_memory / 2**30
            yield Finding(f"cuda:{number}", "ok", f"{properties.name}, {memory:.0f} GiB, {half}")
    elif torch.version.cuda is None:
        yield Finding("cuda", "missing", "torch is a build for CPUs; trainer=gpu needs one for CUDA")
    else:
        yield Finding("cuda", "missing", f"torch is built for CUDA {torch.version.cuda}, and no GPU answers")


def find_folders() -> Iterator[Finding]:
    for what, folder in (("data ($SEQRL_DATA)", data_dir()), ("compiled code", cache_dir()), ("runs", Path("runs"))):
        place = next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)
        free = shutil.disk_usage(place).free / 2**30
        if os.access(place, os.W_OK):
            yield Finding(what, "ok", f"{folder}, {free:.0f} GiB free")
        else:
            yield Finding(what, "wrong", f"{folder} cannot be written; give another folder")


def find_locks() -> Iterator[Finding]:
    folder = Path("runs") if Path("runs").is_dir() else Path()
    path = folder / f".doctor-{os.getpid()}.lock"
    try:
        with hold_lock(path, "") as is_alone:
            found = "this folder has locks" if is_alone else "this file system has no locks: start a run only once"
        yield Finding("locks", "ok" if is_alone else "missing", found)
    finally:
        path.unlink(missing_ok=True)


def find_mujoco() -> Iterator[Finding]:
    """Simulates and draws in a process of its own: a failed OpenGL cannot be taken back."""
    simulated = _try_python("mujoco.mj_step(model, data)")
    if simulated is not None:
        yield Finding("MuJoCo", "wrong", f"does not simulate: {simulated}")
        return
    yield Finding("MuJoCo", "ok", f"{version('mujoco')} simulates")
    yield _find_opengl()


def _find_opengl() -> Finding:
    """Whether MuJoCo can render a video, with the OpenGL that is asked for or one of those that are tried."""
    asked = os.environ.get("MUJOCO_GL")
    tried = []
    for backend in [asked] if asked else BACKENDS:
        reason = _try_python("mujoco.Renderer(model, 64, 64).render()", gl=backend)
        if reason is None:
            return Finding("OpenGL", "ok", f"draws with MUJOCO_GL={backend}")
        library = LIBRARIES.get(backend)
        is_there = library is None or find_library(library) is not None
        tried.append(f"{backend}: {reason if is_there else f'there is no lib{library}'}")
    needs = f"install {PACKAGES[asked]}" if asked in PACKAGES else f"install {INSTALL}"
    return Finding(
        "OpenGL",
        "missing",
        f"for video=true of MuJoCo environments as MuJoCo renders them (stick figures are drawn instead), "
        f"{'; '.join(tried)}; {needs}",
    )


def _try_python(line: str, *, gl: str | None = None) -> str | None:
    """Run one line after a model was made; None, or why it failed.

    Args:
        gl: value of `$MUJOCO_GL` there.
    """
    program = (
        "from seqrl.opengl import prepare_mujoco; prepare_mujoco(); import mujoco; "
        "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody/></mujoco>'); data = mujoco.MjData(model); " + line
    )
    command = [bound_command("seqrl")[0], "-P", "-c", program]
    try:
        done = subprocess.run(
            command,
            env=safe_environment() | ({} if gl is None else {"MUJOCO_GL": gl}),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_WAIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_WAIT} seconds"
    if done.returncode == 0:
        return None
    lines = [each.strip() for each in done.stderr.splitlines() if re.match(r"\w*(Error|Exception)\b", each)]
    return lines[0] if lines else f"exit status {done.returncode}"


def find_videos() -> Iterator[Finding]:
    import imageio_ffmpeg

    yield Finding("ffmpeg", "ok", f"{imageio_ffmpeg.get_ffmpeg_version()} for videos")


def find_cluster() -> Iterator[Finding]:
    if (job := os.environ.get("SLURM_JOB_ID")) is not None:
        yield Finding("SLURM", "ok", f"this is job {job}")
        return
    if shutil.which("sbatch") is None:
        yield Finding("SLURM", "missing", "no sbatch here; sweeps run on this machine alone")
        return
    try:
        done = subprocess.run(
            ["sinfo", "-h", "-o", "%P %D %T"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_WAIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding("SLURM", "missing", f"sinfo does not answer ({error})")
        return
    if done.returncode:
        yield Finding("SLURM", "missing", f"sinfo: {done.stderr.strip()}")
    else:
        yield Finding("SLURM", "ok", "; ".join(done.stdout.strip().splitlines()))


def find_plugins() -> Iterator[Finding]:
    plugins.load_entry_points()
    for plugin, why in plugins.failures().items():
        yield Finding(f"plugin {plugin}", "wrong", f"failed to import: {why}")


LOOKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    find_versions,
    find_processor,
    find_devices,
    find_folders,
    find_locks,
    find_mujoco,
    find_videos,
    find_cluster,
    find_plugins,
)
