"""Write the copies to hand out: `python tests/handout.py [--out build/handout]`.

learner/   the course, its notebooks without solutions and without outputs: those answer predictions
teacher/   the same with every solution where it is asked for, and all that is folded open

Each lies there as a folder and as a zip file, and holds what `make lab` needs. The checks compare
with functions in course_lib/lessons, so whoever looks for solutions there finds them.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import course_notebooks as course
import nbformat

TOGETHER = (
    *("README.md", "LICENSE", "LICENSE-text", "CITATION.cff", "Makefile"),
    *("pyproject.toml", "requirements.txt", "environment.yml", ".gitignore"),
    *("course_lib", "data", "docs", "starter"),
)
LEFT_OUT = ("__pycache__", "cache", "progress.json")  # cache: of drawn and decoded images
FOR_TEACHERS = "teaching.md"
FOR_LEARNERS = """
> This is a copy for a class: `make lab`, `make run`, `make doctor` and `make bundle` work in it.
> Tests, the pages of `make site`, handouts and the notes for teachers are in the whole course.
"""
# The copies have no tests: a command of the README that needs them would only fail.
NEEDS_TESTS = re.compile(r"^(make test\b|.*python -m pytest|\| `(handout|tests/)` \|).*\n", re.M)
SETTINGS_OF_TESTS = re.compile(r"^\[tool\.pytest\..*?(?=^\[|\Z)", re.DOTALL | re.MULTILINE)
LINK_FOR_TEACHERS = re.compile(r"\[([^]]*)\]\(docs/teaching\.md\)")
SOLUTION = re.compile(r'<details id="solution-[\d.]+">.*?</details>', re.DOTALL)


def for_learners(notebook: Any) -> Any:
    """The notebook without solutions and outputs; exercises, checks and hints stay."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("", cell.source).strip()
        else:
            cell.outputs, cell.execution_count = [], None
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    return notebook


def for_teachers(notebook: Any) -> Any:
    """The notebook with solutions in place of stubs, and hints, solutions and answers open.

    Outputs stay, but for those of stubs and checks, which say that nothing was attempted.
    """
    places = course.checks(notebook)
    for exercise, shown in course.exercises(notebook).items():
        check, _ = places[exercise]
        code = [cell for cell in notebook.cells[: check + 1] if cell.cell_type == "code"]
        stub = code[-2]
        assert stub.source == shown.stub
        stub.source = shown.solution.strip()
        for cell in (stub, code[-1]):
            cell.outputs, cell.execution_count = [], None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"<details\b", "<details open", cell.source)
    return notebook


COPIES: dict[str, Callable[[Any], Any]] = {"learner": for_learners, "teacher": for_teachers}


def write(out: Path, kind: str) -> Path:
    """One kind of copy, "learner" or "teacher", in a folder of that name, new; and its zip file."""
    folder = out / kind
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    kept_back = (FOR_TEACHERS,) if kind == "learner" else ()
    for name in TOGETHER:
        there = course.ROOT / name
        if there.is_dir():
            left_out = shutil.ignore_patterns(*LEFT_OUT, *kept_back)
            shutil.copytree(there, folder / name, ignore=left_out)
        else:
            shutil.copy(there, folder)
    if (project := folder / "pyproject.toml").exists():
        # Or `python -m pytest` would run the notebooks against outputs that aren't there.
        text = SETTINGS_OF_TESTS.sub("", project.read_text(encoding="utf-8"))
        project.write_text(text.rstrip() + "\n", encoding="utf-8")
    for path in course.NOTEBOOKS:
        nbformat.write(COPIES[kind](course.read(path)), folder / "notebooks" / path.name)
    if kind == "learner":
        readme = folder / "README.md"
        title, rest = readme.read_text(encoding="utf-8").split("\n", 1)
        text = LINK_FOR_TEACHERS.sub(r"\1", f"{title}\n{FOR_LEARNERS}{rest}")
        readme.write_text(NEEDS_TESTS.sub("", text), encoding="utf-8")
    shutil.make_archive(str(folder), "zip", out, kind)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=course.ROOT / "build" / "handout")
    out = parser.parse_args().out
    for kind in COPIES:
        folder = write(out, kind)
        print(f"{folder} and {folder}.zip")


if __name__ == "__main__":
    main()
