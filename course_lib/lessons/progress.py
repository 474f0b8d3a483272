"""Which exercises are done: a small file beside the notebooks, which never leaves the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from course_lib.checkpoint import write_whole
from course_lib.errors import CourseError

# Set to "off" in tests and when the notebooks are run for publication: neither is a learner.
SWITCH = "COURSE_PROGRESS"
FILE = "progress.json"


def kept() -> bool:
    """Is progress written down here?"""
    return os.environ.get(SWITCH, "on") != "off"


def path() -> Path:
    """Beside the notebooks in a checkout, and else in the working directory."""
    notebooks = Path(__file__).resolve().parents[2] / "notebooks"
    return (notebooks if notebooks.is_dir() else Path.cwd()) / FILE


def read() -> dict[str, str]:
    """Status by exercise; empty where nothing was kept or the file can't be read."""
    if not kept():
        return {}
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(key): str(value) for key, value in found.items()}


def record(exercise: str, status: str) -> None:
    """Note the latest result. A passed exercise stays passed; a folder that can't be written to
    costs the record, never the lesson."""
    so_far = read()
    if not kept() or so_far.get(exercise) in ("passed", status):
        return
    text = json.dumps(dict(sorted({**so_far, exercise: status}.items())), indent=1)
    try:
        write_whole(path(), lambda file: file.write(text.encode()))
    except (OSError, CourseError):
        return


def table(exercises: Iterable[str], titles: Mapping[str, str]) -> str:
    """One line per notebook: how many of its exercises are passed, and which are tried.

    exercises: ids such as "05.2". titles: notebook number → title.
    """
    status, lines = read(), []
    ids = sorted(exercises)
    for number, title in sorted(titles.items()):
        own = [name for name in ids if name.startswith(f"{number}.")]
        if not own:
            continue
        passed = sum(status.get(name) == "passed" for name in own)
        bar = "■" * passed + "□" * (len(own) - passed)
        tried = [name for name in own if status.get(name) == "not yet"]
        note = f"   tried: {', '.join(tried)}" if tried else ""
        lines.append(f"{number} {title:<24} {bar:<12} {passed} of {len(own)}{note}")
    if not kept():
        lines.append("(No progress is kept here: this page was run for publication or for a test.)")
    return "\n".join(lines)
