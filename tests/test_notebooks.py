"""What must hold for every notebook, beside nbval, which runs them and compares their text.

nbval never compares a picture, nor a cell that was not run, and passes an unknown magic: so these
tests see to it that there is enough it does compare.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import course_notebooks as course
import nbformat
import pytest

from course_lib.lessons import catalogue

MOST_BYTES = 300_000
LEAST_COMPARED = 0.5  # of the code cells
MOST_IGNORED = 0.1
RECORD = course.ROOT / "data" / "recorded_runs" / "notebooks.json"
STATED = re.compile(r"running all cells takes about (\d+) s")
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)|(?:href|src)=[\"']([^\"'#]+)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
DETAILS = re.compile(r"<details[^>]*>\s*<summary>.*?</summary>(.*?)</details>", re.DOTALL)

every = pytest.mark.parametrize("path", course.NOTEBOOKS, ids=[p.stem for p in course.NOTEBOOKS])
lessons = pytest.mark.parametrize(
    "path",
    [path for path in course.NOTEBOOKS if not path.stem.startswith("00")],
    ids=[path.stem for path in course.NOTEBOOKS if not path.stem.startswith("00")],
)


def markdown(notebook: Any) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


@every
def test_is_a_valid_notebook_for_any_python_kernel(path: Path) -> None:
    notebook = course.read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert path.stat().st_size < MOST_BYTES


@every
def test_every_cell_was_run_in_order_and_none_failed(path: Path) -> None:
    cells = course.code_cells(course.read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    errors = [
        out.ename for cell in cells for out in course.outputs(cell) if out.output_type == "error"
    ]
    assert errors == []


@every
def test_nothing_passes_by_accident(path: Path) -> None:
    """Magics (nbval passes unknown ones), a trailing semicolon, what writes to stderr."""
    for cell in course.code_cells(course.read(path)):
        lines = cell.source.splitlines()
        assert not [line for line in lines if line.lstrip().startswith(("%", "!"))], cell.source
        assert not cell.source.rstrip().endswith(";")
        names = [out.get("name") for out in course.outputs(cell)]
        assert "stderr" not in names, cell.source


@every
def test_enough_is_compared(path: Path) -> None:
    cells = course.code_cells(course.read(path))
    compared = [cell for cell in cells if course.is_compared(cell)]
    ignored = [cell for cell in cells if course.IGNORED in course.tags(cell)]
    assert len(compared) >= LEAST_COMPARED * len(cells)
    assert len(ignored) <= MOST_IGNORED * len(cells)
    known = {course.IGNORED, "raises-exception"}
    assert {tag for cell in cells for tag in course.tags(cell)} <= known


@every
def test_every_figure_has_its_caption(path: Path) -> None:
    for cell in course.code_cells(course.read(path)):
        printed = " ".join(
            "".join(out.text for out in course.outputs(cell) if out.output_type == "stream").split()
        )
        for image in course.images(cell):
            alt = image.metadata.get("image/png", {}).get("alt", "")
            assert len(alt.split()) >= 5, cell.source
            assert f"Figure: {' '.join(alt.split())}" in printed


@every
def test_answers_have_a_sign_of_approximation_unless_they_are_exact(path: Path) -> None:
    """Numbers behind ≈ aren't compared by nbval: what is the same everywhere should be."""
    printed = " ".join(
        out.text
        for cell in course.code_cells(course.read(path))
        for out in course.outputs(cell)
        if out.output_type == "stream"
    )
    for question in catalogue.questions():
        if question.id.startswith(path.stem[:2]) and not question.choices:
            answer = " ".join(printed.split()).split(f"{question.asks}: ")[1]
            assert answer.startswith("≈") != question.exact, question.id


@every
def test_headings_are_in_order(path: Path) -> None:
    text = re.sub(r"```.*?```", "", markdown(course.read(path)), flags=re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@every
def test_nothing_names_a_place_of_one_machine_or_needs_a_network(path: Path) -> None:
    for cell in course.code_cells(course.read(path)):
        assert not re.search(r"https?://|urlopen|requests\.|pip install", cell.source)
        assert not re.search(r"[\"'](/|[A-Z]:\\)", cell.source)


@every
def test_details_open_in_every_reader(path: Path) -> None:
    text = markdown(course.read(path))
    assert text.count("<details") == text.count("</details>") == len(DETAILS.findall(text))
    for body in DETAILS.findall(text):
        assert body.startswith("\n\n"), "a blank line after </summary>, or Markdown isn't rendered"
    assert not re.search(r"!\[\s*\]\(", text), "an image without alt text"


@every
def test_links_to_files_lead_somewhere(path: Path) -> None:
    text = CODE.sub("", markdown(course.read(path)))
    targets = [first or second for first, second in LINK.findall(text)]
    files = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [file for file in files if not (path.parent / file).exists()] == []


@lessons
def test_has_the_parts_of_a_lesson(path: Path) -> None:
    notebook = course.read(path)
    text, code = markdown(notebook), "\n".join(c.source for c in course.code_cells(notebook))
    for heading in ("What you will be able to do", "Recall", "References"):
        assert re.search(rf"^##+ {heading}", text, re.MULTILINE), heading
    recall = re.split(r"^##+ Recall.*$", text, flags=re.MULTILINE)[1]
    assert len(DETAILS.findall(re.split(r"^## ", recall, flags=re.MULTILINE)[0])) >= 5
    assert "explore(" in code
    assert "twin(" in code
    assert len(course.exercises(notebook)) >= 3


@every
def test_what_is_predicted_has_been_asked(path: Path) -> None:
    for asks, cell in pairwise(course.read(path).cells):
        if cell.cell_type == "code" and 'predict("' in cell.source:
            last = asks.source.rstrip().split("\n\n")[-1]
            asked = re.search(r"\bPredict\b", asks.source) or "?" in last
            assert asks.cell_type == "markdown" and asked, cell.id


def test_each_of_the_articles_figures_has_its_heading() -> None:
    (path,) = [path for path in course.NOTEBOOKS if path.stem.startswith("06")]
    text = markdown(course.read(path))
    headings = re.findall(r"^### .*: the article's figure (\d)$", text, re.MULTILINE)
    assert headings == ["6", "7", "8"]


@every
def test_states_the_time_it_takes(path: Path) -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))[path.stem]
    stated = STATED.search(course.read(path).cells[0].source)
    assert stated, "the first cell says: running all cells takes about N s"
    assert record["seconds"] / 1.5 <= float(stated.group(1)) <= record["seconds"] * 1.5


def bound(tree: ast.AST) -> set[str]:
    """The names that a cell itself binds, not those inside its functions and comprehensions."""
    inside = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if not isinstance(node, (*inside, ast.GeneratorExp)):
            found |= bound(node)
    return found


@every
def test_no_cell_takes_a_name_of_pythons(path: Path) -> None:
    """A cell that calls a number `round` breaks every later answer that rounds."""
    for cell in course.code_cells(course.read(path)):
        assert not bound(ast.parse(cell.source)) & set(dir(builtins)), cell.id
