"""The learner's copy gives nothing away and the teacher's copy passes every check."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import course_notebooks as course
import handout
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget

from course_lib.lessons import catalogue

# See rerun.py.
OutputWidget.sync_state = lambda self: None  # type: ignore[method-assign]

SHORT = 12  # letters without blanks; shorter lines, as `return narrow`, give nothing away
# Where the course goes on with what an exercise has made: the bug hunt 04.6 is about a function
# that does what 04.5 asks for and more, and later notebooks carry an optimiser across surgery.
MEANT = {("04.5", "04.6"), ("04.9", "06"), ("06.6", "09")}
QUICK = "02_residual_blocks"  # the one that takes the fewest CPU seconds

every = pytest.mark.parametrize("path", course.NOTEBOOKS, ids=[p.stem for p in course.NOTEBOOKS])
quick_and_slow = pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.stem, marks=[] if path.stem == QUICK else pytest.mark.slow)
        for path in course.NOTEBOOKS
    ],
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handout")
    for kind in handout.COPIES:
        handout.write(folder, kind)
    return folder


def own_lines(shown: course.OnPage) -> set[str]:
    """The lines of a solution that aren't in its stub, without blanks and comments."""
    return lines(shown.solution) - lines(shown.stub)


def lines(source: str) -> set[str]:
    found = (re.sub(r"\s+", "", line.split("  #")[0]) for line in source.splitlines())
    return {line for line in found if len(line) >= SHORT}


def leaks(notebook: Any, shown: course.OnPage) -> list[str]:
    """The cells of a notebook that hold more than half of a solution."""
    own = own_lines(shown)
    assert own, f"{shown.id} has no line of its own"
    return [cell.source for cell in notebook.cells if 2 * len(own & lines(cell.source)) > len(own)]


def all_exercises() -> dict[str, course.OnPage]:
    return {
        name: shown
        for path in course.NOTEBOOKS
        for name, shown in course.exercises(course.read(path)).items()
    }


def run(path: Path) -> Any:
    notebook = course.read(path)
    place = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    return notebook


def printed(cell: Any) -> str:
    return "".join(out.text for out in course.outputs(cell) if out.output_type == "stream")


# ---- learners


@every
def test_no_solution_is_in_a_learners_copy(path: Path, out: Path) -> None:
    handed_out = course.read(out / "learner" / "notebooks" / path.name)
    stubs = {shown.stub: name for name, shown in all_exercises().items()}
    for name, shown in all_exercises().items():
        found = leaks(handed_out, shown)
        places = [(name, stubs.get(source, path.stem[:2])) for source in found]
        assert set(places) <= MEANT
    text = "\n".join(cell.source for cell in handed_out.cells)
    assert "solution-" not in text and "<summary>Solution" not in text


def test_a_solution_that_was_left_is_found() -> None:
    """In each of the forms in which one could stay: folded, in a code cell, indented otherwise."""
    for name, shown in all_exercises().items():
        for source in (shown.solution, f"try:\n{shown.solution}".replace("\n", "\n    ")):
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
            assert leaks(notebook, shown) == [source], name


@every
def test_the_words_of_a_solution_are_gone_too(path: Path, out: Path) -> None:
    handed_out = course.read(out / "learner" / "notebooks" / path.name)
    text = "\n".join(cell.source for cell in handed_out.cells)
    for cell in course.read(path).cells:
        for block in handout.SOLUTION.findall(cell.source):
            explained = re.sub(r"```.*?```", "", block, flags=re.DOTALL).splitlines()
            words = [line for line in explained if len(line.split()) > 4]
            assert [line for line in words if line in text] == []


@every
def test_all_else_is_there_for_learners(path: Path, out: Path) -> None:
    whole, handed_out = course.read(path), course.read(out / "learner" / "notebooks" / path.name)
    nbformat.validate(handed_out)
    before, after = course.exercises(whole), course.exercises(handed_out)
    assert list(after) == list(before)
    for name, shown in after.items():
        assert (shown.stub, shown.name) == (before[name].stub, before[name].name)
        assert shown.hint == before[name].hint != ""
    gone = [cell.id for cell in whole.cells if 'id="solution-' in cell.source]
    assert [c.id for c in handed_out.cells] == [c.id for c in whole.cells if c.id not in gone]
    assert len(gone) == len(before)
    assert all(not cell.outputs for cell in course.code_cells(handed_out))


@quick_and_slow
def test_a_learners_copy_runs(name: str, out: Path) -> None:
    notebook = run(out / "learner" / "notebooks" / f"{name}.ipynb")
    for place, _ in course.checks(notebook).values():
        assert re.search("not attempted|the bug is still in", printed(notebook.cells[place]))


# ---- teachers


@every
def test_the_teachers_copy_has_everything_open(path: Path, out: Path) -> None:
    whole, handed_out = course.read(path), course.read(out / "teacher" / "notebooks" / path.name)
    nbformat.validate(handed_out)
    assert [cell.id for cell in handed_out.cells] == [cell.id for cell in whole.cells]
    text = "\n".join(c.source for c in handed_out.cells if c.cell_type == "markdown")
    assert text.count("<details") == text.count("<details open") > 0
    code = [cell.source for cell in course.code_cells(handed_out)]
    for shown in course.exercises(whole).values():
        assert shown.solution.strip() in code and shown.stub not in code
    kept = sum(bool(cell.outputs) for cell in course.code_cells(handed_out))
    said = sum(bool(cell.outputs) for cell in course.code_cells(whole))
    assert kept == said - len(course.exercises(whole))


@quick_and_slow
def test_every_check_passes_in_the_teachers_copy(name: str, out: Path) -> None:
    notebook = run(out / "teacher" / "notebooks" / f"{name}.ipynb")
    checked = course.checks(notebook)
    assert sorted(checked) == sorted(e.id for e in catalogue.exercises() if e.id[:2] == name[:2])
    for exercise, (place, _) in checked.items():
        assert f"Exercise {exercise}: passed." in printed(notebook.cells[place])


# ---- the folders


@pytest.mark.parametrize("kind", handout.COPIES)
def test_a_copy_holds_what_the_course_needs(kind: str, out: Path) -> None:
    folder = out / kind
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    needed = {"Makefile", "requirements.txt", "course_lib/__main__.py", "data/small/full.pt"}
    assert needed <= names
    assert {f"notebooks/{path.name}" for path in course.NOTEBOOKS} <= names
    assert not [name for name in names if re.search(r"cache/|progress\.json$|^tests/", name)]
    with zipfile.ZipFile(out / f"{kind}.zip") as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert packed == {f"{kind}/{name}" for name in names}


def test_teaching_notes_are_for_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "course"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "teaching.md").write_text("answers")
    (root / "README.md").write_text("# A course\n")
    monkeypatch.setattr(course, "ROOT", root)
    monkeypatch.setattr(course, "NOTEBOOKS", [])
    monkeypatch.setattr(handout, "TOGETHER", ("docs", "README.md"))
    assert not (handout.write(tmp_path, "learner") / "docs" / "teaching.md").exists()
    assert (handout.write(tmp_path, "teacher") / "docs" / "teaching.md").exists()


def test_what_lay_in_a_copy_before_is_gone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(course, "NOTEBOOKS", [])
    monkeypatch.setattr(handout, "TOGETHER", ("README.md",))
    (tmp_path / "learner" / "notebooks").mkdir(parents=True)
    (tmp_path / "learner" / "notebooks" / "old.ipynb").touch()
    folder = handout.write(tmp_path, "learner")
    assert not (folder / "notebooks" / "old.ipynb").exists()


def test_the_learners_readme_promises_what_is_there(out: Path) -> None:
    readme = (out / "learner" / "README.md").read_text(encoding="utf-8")
    title, _, note = readme.split("\n")[:3]
    assert title.startswith("# ") and note.startswith("> This is a copy for a class")
    links = re.findall(r"\]\(([^)#:]+)[^):]*\)", readme)
    assert links and [link for link in links if not (out / "learner" / link).exists()] == []
    assert "docs/teaching.md" in readme, "as text"
    assert "pytest\n" not in readme and "make test" not in readme and "`tests/`" not in readme
    assert "make run     #" in readme and "`.venv/bin/python" in readme, "the rest is there"
    whole = (out / "teacher" / "README.md").read_text(encoding="utf-8")
    assert whole == (course.ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", handout.COPIES)
def test_pytest_finds_nothing_to_fail_in_a_copy(kind: str, out: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=out / kind, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
    project = tomllib.loads((out / kind / "pyproject.toml").read_text(encoding="utf-8"))
    whole = tomllib.loads((course.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    del whole["tool"]["pytest"]
    assert project == whole
