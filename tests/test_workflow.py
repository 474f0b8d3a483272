"""The workflow for whoever hosts the course asks for what the project promises and has.

Nobody has run it on a hosting service; these tests see that it can't drift from the rest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from test_repository import project, ranges, targets

from course_lib.doctor import NEWEST_TESTED, OLDEST

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = [f"3.{minor}" for minor in range(OLDEST[1], NEWEST_TESTED[1] + 1)]


def jobs() -> dict[str, Any]:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["jobs"]


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_every_python_and_every_system_that_is_promised() -> None:
    matrix = jobs()["systems"]["strategy"]["matrix"]
    assert matrix["python"] == VERSIONS
    assert [name.split("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]
    assert project()["requires-python"] == f">={VERSIONS[0]}"
    fixed = [
        step["with"]["python-version"]
        for name in ("whole", "oldest")
        for step in jobs()[name]["steps"]
        if "with" in step
    ]
    assert fixed == [VERSIONS[0]] * 2


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    install = commands(jobs()["oldest"])[0]
    asked = dict(re.findall(r'"([\w-]+)==([\d.]+)\.\*"', install))
    library = [re.split(r"[<>=]", line)[0] for line in project()["dependencies"]]
    assert asked == {name: str(ranges()[name]).removeprefix(">=") for name in library}
    extras = re.search(r"\.\[([\w,]+)\]", install)
    assert extras and set(extras[1].split(",")) == set(project()["optional-dependencies"])


def test_its_commands_are_there() -> None:
    every = [command for job in jobs().values() for command in commands(job)]
    assert ".ci/run" in commands(jobs()["whole"])
    assert {name for command in every for name in re.findall(r"\bmake (\S+)", command)} <= targets()
    files = re.findall(r"(?:^|\s)(\.?[\w-]+[/.][\w./-]+)", "\n".join(every))
    assert {"requirements.txt", "tests/test_quality.py"} <= set(files)
    assert [name for name in files if not (ROOT / name).exists()] == []
    modules = {name for command in every for name in re.findall(r"python -m (\w+)", command)}
    assert modules == {"pip", "pytest", "course_lib"}


def test_windows_and_macos_need_no_make() -> None:
    assert not [command for command in commands(jobs()["systems"]) if "make" in command]
