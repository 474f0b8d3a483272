"""Whether this machine has all that the course needs, and how to fix what it lacks.

Each check is a function of what was found. Only the standard library is imported, so that it works
where nothing else does.
"""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib import machine

OLDEST, NEWEST_TESTED = (3, 11), (3, 13)
# Packages by the names that pip and Python know them by; a test holds them to pyproject.toml.
PACKAGES = {
    "numpy": "numpy",
    "torch": "torch",
    "torchvision": "torchvision",
    "pillow": "PIL",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
    "filelock": "filelock",
}
LAB_PACKAGES = {"jupyterlab": "jupyterlab", "ipywidgets": "ipywidgets", "ipython": "IPython"}

GB = 1e9
# For the laptop preset. Its drawn images take 138 MB (20,000 of 48 x 48 x 3 bytes). A network has
# 11.5 million parameters, 46 MB; there are four of that size in a checkpoint (network, momentum,
# full network, last that passed), two checkpoints while one replaces the other, and two files more.
DISK_NEEDED, DISK_COMFORTABLE = 1 * GB, 3 * GB
# Measured: 1.5 GB at most in a run of one round (one thread, batches of 64 images of 48 pixels);
# in the end the networks of all 17 rounds are timed together.
MEMORY_NEEDED, MEMORY_COMFORTABLE = 1.5 * GB, 3 * GB

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is ("ok", "warning", "problem"), and what fixes it."""

    name: str
    verdict: str
    what: str
    fix: str = ""


def examine() -> list[Check]:
    """Make every check on this machine."""
    packages = {**PACKAGES, **LAB_PACKAGES}
    found = machine.probe(list(packages.values()))
    versions, lowest = machine.installed(packages), machine.lower_bounds()
    here = Path.cwd()
    return [
        *check_environment(Path(__file__).resolve().parent.parent),
        check_python(sys.version_info[:3]),
        *check_packages({name: versions[name] for name in PACKAGES}, lowest, found),
        check_devices(found),
        check_memory(machine.free_memory()),
        *check_cache(found),
        check_folder("this folder", here, "change to a folder of yours, or give an --out"),
        check_disk(
            "folder's disk", machine.free_disk(here), "make room, or give an --out elsewhere"
        ),
        *check_lab({name: versions[name] for name in LAB_PACKAGES}, lowest, found),
    ]


def describe(checks: Sequence[Check]) -> str:
    """A line per check with what fixes it, and one for them all."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        fix = f": {check.fix}" if check.fix else ""
        lines.append(f"{check.name:<{width}}  {check.verdict:<7}  {one_line(check.what)}{fix}")
    problems = sum(check.verdict == PROBLEM for check in checks)
    if problems:
        lines.append(f"{problems} problem{'s' * (problems != 1)} to fix, then look again.")
    else:
        lines.append("All that a run needs is here.")
    return "\n".join(lines)


def one_line(text: str, most: int = 300) -> str:
    """The text on one line, cut where nobody would read on."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[:most] + "…"


def check_python(version: Sequence[int]) -> Check:
    """Whether it is a version that the course is tested with."""
    text, minor = ".".join(map(str, version)), tuple(version[:2])
    if minor < OLDEST:
        fix = "install Python 3.11 or newer, then `make setup PYTHON=python3.12`"
        return Check("python", PROBLEM, f"{text} is too old", fix)
    if minor > NEWEST_TESTED:
        fix = f"if something fails, use Python {'.'.join(map(str, NEWEST_TESTED))}"
        return Check("python", WARNING, f"{text} is newer than what the course is tested on", fix)
    return Check("python", OK, text)


def check_environment(checkout: Path) -> list[Check]:
    """Whether another Python runs than the one that the course was installed for by make."""
    venv = checkout / ".venv"
    pythons = [venv / "bin" / "python", venv / "Scripts" / "python.exe"]
    there = next((path for path in pythons if path.exists()), None)
    if there is None or Path(sys.prefix).resolve() == venv.resolve():
        return []
    short = there.relative_to(checkout) if Path.cwd() == checkout else there
    what = f"This is {sys.executable}; the course is installed in .venv"
    command = machine.quoted([str(short), "-m", "course_lib", "doctor"])
    return [Check("environment", WARNING, what, f"use {command}")]


def check_packages(
    versions: Mapping[str, str | None], lowest: Mapping[str, str], found: Mapping[str, Any]
) -> list[Check]:
    """A line per package that is missing, too old or broken; one line if there is none.

    `versions`: package → installed version or None; `lowest`: package → oldest that will do;
    `found`: what `machine.probe` says.
    """
    wrong = [
        check
        for package, version in versions.items()
        if (check := _check_package(package, version, lowest.get(package, "0"), found))
    ]
    if not wrong and "crash" in found:
        wrong = [Check("packages", PROBLEM, found["crash"], _anew())]
    return wrong or [Check("packages", OK, _listed(versions))]


def _check_package(
    package: str, version: str | None, lowest: str, found: Mapping[str, Any]
) -> Check | None:
    reason = found.get("broken", {}).get({**PACKAGES, **LAB_PACKAGES}[package])
    if version is None and (reason or "crash" in found):
        return Check(package, PROBLEM, "is not installed", f"install it with {_install()}")
    if version is not None and _numbers(version) < _numbers(lowest):
        what = f"{version} is older than {lowest}"
        return Check(package, PROBLEM, what, f"bring it up to date with {_install()}")
    if reason:
        return Check(package, PROBLEM, f"{version} can't be imported ({one_line(reason)})", _anew())
    return None


def check_lab(
    versions: Mapping[str, str | None], lowest: Mapping[str, str], found: Mapping[str, Any]
) -> list[Check]:
    """JupyterLab and its widgets, which the notebooks need and the command line doesn't."""
    checks = check_packages(versions, lowest, {"broken": found.get("broken", {})})
    if checks[0].verdict == OK:
        return [Check("notebooks", OK, _listed(versions))]
    without = ", and the notebooks need it"
    return [Check(c.name, WARNING, c.what + without, c.fix) for c in checks]


def check_devices(found: Mapping[str, Any]) -> Check:
    """What PyTorch can compute on, and which of it `--device auto` takes."""
    if "threads" not in found:
        return Check("devices", WARNING, "not known until PyTorch can be imported")
    devices: Mapping[str, str] = found["devices"]
    taken = next((name for name in ("cuda", "mps") if name in devices), "cpu")
    parts = [f"CPU with {found['threads']} thread{'s' * (found['threads'] != 1)}"]
    if "cuda" in found:
        name, free, total = found["cuda"]
        parts.append(f"CUDA ({name}, {free / GB:.1f} of {total / GB:.1f} GB free)")
    if devices.get("mps") == "":
        parts.append("Apple's MPS")
    what = f"{', '.join(parts)}; --device auto takes {taken}"
    if devices.get(taken):
        fix = "give --device cpu, or install a driver and a PyTorch that belong together"
        reason = one_line(devices[taken])
        return Check("devices", PROBLEM, f"{what}, which doesn't work ({reason})", fix)
    return Check("devices", OK, what)


def check_memory(memory: tuple[float, str] | None) -> Check:
    """Whether the laptop preset fits; `memory` as `machine.free_memory` gives it."""
    if memory is None:
        return Check("memory", OK, "how much there is can't be told on this system")
    amount, kind = memory
    what = f"{amount / GB:.1f} GB {kind}"
    if amount < MEMORY_NEEDED:
        return Check("memory", PROBLEM, what, "close other programs, or use a larger machine")
    if amount < MEMORY_COMFORTABLE:
        return Check("memory", WARNING, what, "close other programs, or give --batch-size 32")
    return Check("memory", OK, what)


def check_cache(found: Mapping[str, Any]) -> list[Check]:
    """The folder for drawn and decoded images."""
    if "crash" in found or {"numpy", "filelock"} & set(found["broken"]):
        return [Check("cache", WARNING, "where it lies isn't known until the packages are there")]
    cache = importlib.import_module("course_lib.images.cache")
    fix = f"name another folder with --cache or {cache.ENVIRONMENT_VARIABLE}"
    folder = cache.default_cache()
    return [
        check_folder("cache", folder, fix),
        check_disk("cache's disk", machine.free_disk(folder), f"make room, or {fix}"),
    ]


def check_folder(name: str, folder: Path, fix: str) -> Check:
    """Whether files can be written into the folder, or into the one that it will be made in."""
    try:
        with tempfile.TemporaryFile(dir=machine.nearest(folder)) as file:
            file.write(b"course")
    except OSError as error:
        what = f"{folder} can't be written ({error.strerror or error})"
        return Check(name, PROBLEM, what, fix)
    return Check(name, OK, str(folder))


def check_disk(name: str, free: float | None, fix: str) -> Check:
    """Whether there is room for a run; `free` in bytes."""
    if free is None:
        return Check(name, WARNING, "how much is free can't be told")
    what = f"{free / GB:.1f} GB free"
    if free < DISK_NEEDED:
        return Check(name, PROBLEM, what, fix)
    return Check(name, WARNING, what, fix) if free < DISK_COMFORTABLE else Check(name, OK, what)


def _listed(versions: Mapping[str, str | None]) -> str:
    return ", ".join(
        f"{name} {version or '(version unknown)'}" for name, version in versions.items()
    )


def _install() -> str:
    return f"`make setup`, or `{machine.python_command()} -m pip install -r requirements.txt -e .`"


def _anew() -> str:
    return "delete the folder .venv and install again: `make clean`, then `make setup`, with make"


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, to compare: 2.10.0+cpu → (2, 10)."""
    numbers = [int(part) for part in re.findall(r"\d+", re.match(r"[\d.]*", version)[0])]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
