"""What re-running the notebooks keeps and replaces, and that each guard refuses a bad notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import course_notebooks as course
import pytest
import test_notebooks as guards
from nbformat import v4, write
from rerun import keep_what_is_the_same, tidy, words

PICTURE, OTHER_PICTURE = "iVBORw0KGgo=", "iVBORw0KGgp="


def printed(text: str, name: str = "stdout") -> Any:
    return v4.new_output("stream", text=text, name=name)


def pictured(data: str, alt: str = "a line that rises to 3") -> Any:
    return v4.new_output(
        "display_data",
        data={"image/png": data, "text/plain": "<figure, 4 by 2 inches>"},
        metadata={"image/png": {"alt": alt}},
    )


def notebook(*cells: Any) -> Any:
    """A notebook of these cells, with ids that stay the same from one to the next."""
    for place, cell in enumerate(cells):
        cell.id = f"cell-{place}"
    made = v4.new_notebook(cells=list(cells))
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    return made


def cell(source: str, *outputs: Any, count: int | None = 1, tags: tuple[str, ...] = ()) -> Any:
    metadata = {"tags": list(tags)} if tags else {}
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


# ---- the conditions


def test_a_notebook_tested_alone_writes_nobodys_progress() -> None:
    """Then pytest reads the conftest beside it, and not the one of the tests."""
    program = (
        "import os, runpy; runpy.run_path('notebooks/conftest.py');"
        "print(*(os.environ[name] for name in ('COURSE_PROGRESS', 'COURSE_DEVICE')))"
    )
    outside = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=course.ROOT,
        env={**outside, "COURSE_PROGRESS": "on"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "off cpu\n"


# ---- what is kept


def after_a_rerun(old: list[Any], new: list[Any], count: int | None = 1) -> tuple[int, list[Any]]:
    """How many cells were replaced, and what the one cell of the notebook then shows."""
    fresh = notebook(cell("x", *new))
    replaced = keep_what_is_the_same(notebook(cell("x", *old, count=count)), fresh)
    return replaced, fresh.cells[0].outputs


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("accuracy ≈0.953: ok", "accuracy ≈0.961: ok"),
        ("≈1,234 images, ≈-0.3 points", "≈87 images, ≈+0.25 points"),
        ("error ≈1.5e-07", "error ≈2e-9"),
        ("at <f 0x7f00aa12bc30>", "at <f 0x7f11bb45de60>"),
        ("Figure: a long ≈9.5\nline", "Figure: a long\n≈10.25 line"),
    ],
)
def test_what_may_differ_keeps_its_old_output(old: str, new: str) -> None:
    before = [printed(old), pictured(PICTURE)]
    assert after_a_rerun(before, [printed(new), pictured(OTHER_PICTURE)]) == (0, before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("accuracy 0.953", "accuracy 0.961"),
        ("accuracy ≈0.953: ok", "accuracy ≈0.953: outside"),
        ("≈3 of 4 images", "≈3 of 5 images"),
        ("done", ""),
        ("", "done"),
    ],
)
def test_what_really_changed_is_replaced(old: str, new: str) -> None:
    after = [printed(new), pictured(OTHER_PICTURE)]
    assert after_a_rerun([printed(old), pictured(PICTURE)], after) == (1, after)


def test_a_cell_that_was_never_run_gets_its_output() -> None:
    assert after_a_rerun([printed("x")], [printed("x")], count=None)[0] == 1


def test_one_output_more_or_of_another_kind_counts_as_a_change() -> None:
    assert after_a_rerun([printed("x")], [printed("x"), pictured(PICTURE)])[0] == 1
    assert after_a_rerun([printed("x")], [printed("x", "stderr")])[0] == 1
    html = v4.new_output("display_data", data={"text/html": "x"})
    assert after_a_rerun([printed("x")], [html])[0] == 1


def test_how_a_stream_was_cut_into_pieces_does_not_matter() -> None:
    pieces = [printed("one\n"), printed("two\n")]
    assert after_a_rerun([printed("one\ntwo\n")], pieces)[0] == 0
    assert words(pieces, []) == words([printed("one\ntwo\n")], [])
    made = notebook(cell("x", *pieces, pictured(PICTURE), printed("three\n")))
    tidy(made)
    assert [out.get("text") for out in made.cells[0].outputs] == ["one\ntwo\n", None, "three\n"]


def test_only_the_cells_that_changed_are_replaced() -> None:
    old = notebook(cell("a", printed("1")), cell("b", printed("2")), v4.new_markdown_cell("c"))
    new = notebook(cell("a", printed("1")), cell("b", printed("3")), v4.new_markdown_cell("c"))
    assert keep_what_is_the_same(old, new) == 1
    assert [c.outputs[0].text for c in course.code_cells(new)] == ["1", "3"]


def test_a_tidy_notebook_names_no_machine_and_no_time() -> None:
    widget = v4.new_output(
        "display_data", data={course.WIDGET: {"model_id": "abc"}, "text/plain": "(a widget)"}
    )
    made = notebook(cell("x", widget))
    made.cells[0].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00"}
    made.metadata.widgets = {"state": {}}
    made.metadata.kernelspec = {"name": "mine", "display_name": "Mine", "language": "python"}
    made.metadata.language_info = {"name": "python", "version": "3.11.7"}
    tidy(made)
    assert made.metadata == {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    assert made.cells[0].metadata == {}
    assert made.cells[0].outputs[0].data == {"text/plain": "(a widget)"}


# ---- the guards


def saved(folder: Path, *cells: Any) -> Path:
    """The notebook as a file that stands beside nothing."""
    made, path = notebook(*cells), folder / "01_made.ipynb"
    write(made, path)
    return path


TEXT = "# 01 · Made\n\nrunning all cells takes about 10 s"
CAPTION = "Figure: a line that rises\nto 3\n"


def good() -> list[Any]:
    return [
        v4.new_markdown_cell(TEXT),
        cell("print(1)", printed("1\n")),
        v4.new_markdown_cell("## Next\n\n<details>\n<summary>Hint</summary>\n\nx\n\n</details>"),
        cell("show(figure)", pictured(PICTURE), printed(CAPTION), count=2),
    ]


GUARDS = [
    guards.test_is_a_valid_notebook_for_any_python_kernel,
    guards.test_every_cell_was_run_in_order_and_none_failed,
    guards.test_nothing_passes_by_accident,
    guards.test_enough_is_compared,
    guards.test_every_figure_has_its_caption,
    guards.test_headings_are_in_order,
    guards.test_nothing_names_a_place_of_one_machine_or_needs_a_network,
    guards.test_details_open_in_every_reader,
    guards.test_links_to_files_lead_somewhere,
    guards.test_states_the_time_it_takes,
]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "notebooks.json"
    path.write_text(json.dumps({"01_made": {"seconds": 9.0}}))
    monkeypatch.setattr(guards, "RECORD", path)
    return path


def refusing(path: Path) -> list[str]:
    """The names of the guards that refuse a notebook."""
    found = []
    for guard in GUARDS:
        try:
            guard(path)
        except AssertionError:
            found.append(guard.__name__)
    return found


def test_a_good_notebook_passes_every_guard(tmp_path: Path, record: Path) -> None:
    assert refusing(saved(tmp_path, *good())) == []


def edited(place: int, **changes: Any) -> Callable[[], list[Any]]:
    """The good notebook with one cell changed."""

    def make() -> list[Any]:
        cells = good()
        cells[place].update(changes)
        return cells

    return make


def error() -> Any:
    return v4.new_output("error", ename="ValueError", evalue="no", traceback=[])


def text(words: str) -> Callable[[], list[Any]]:
    return lambda: [*good(), v4.new_markdown_cell(words)]


def code(source: str, *outputs: Any, tags: tuple[str, ...] = ()) -> Callable[[], list[Any]]:
    return lambda: [*good(), cell(source, *outputs, count=3, tags=tags)]


NOT_RUN = "test_every_cell_was_run_in_order_and_none_failed"
ACCIDENT = "test_nothing_passes_by_accident"
COMPARED = "test_enough_is_compared"
FIGURE = "test_every_figure_has_its_caption"
HEADINGS = "test_headings_are_in_order"
PLACE = "test_nothing_names_a_place_of_one_machine_or_needs_a_network"
DETAILS = "test_details_open_in_every_reader"
LINKS = "test_links_to_files_lead_somewhere"
TIME = "test_states_the_time_it_takes"

BAD: dict[str, tuple[str, Callable[[], list[Any]]]] = {
    "a cell not run": (NOT_RUN, edited(1, execution_count=None)),
    "cells run out of order": (NOT_RUN, edited(1, execution_count=5)),
    "a stored error": (NOT_RUN, edited(1, outputs=[printed("1\n"), error()])),
    "a magic": (ACCIDENT, edited(1, source="%matplotlib inline\nprint(1)")),
    "a shell command": (ACCIDENT, edited(1, source="!ls")),
    "a semicolon": (ACCIDENT, edited(1, source="print(1);\n")),
    "stderr": (ACCIDENT, code("warn()", printed("careful\n", "stderr"), printed("1\n"))),
    "little compared": (COMPARED, lambda: [*good(), *(cell("x", count=i) for i in (3, 4, 5))]),
    "much ignored": (COMPARED, code("x", printed("1"), tags=(course.IGNORED,))),
    "an unknown tag": (COMPARED, code("x", printed("1"), tags=("skip-me",))),
    "a caption not printed": (FIGURE, edited(3, outputs=[pictured(PICTURE), printed("1\n")])),
    "another caption": (FIGURE, edited(3, outputs=[pictured(PICTURE, "two bars as high as "
                        "one another"), printed(CAPTION)])),
    "no alt text": (FIGURE, edited(3, outputs=[pictured(PICTURE, ""), printed("Figure: \n")])),
    "a heading skipped": (HEADINGS, text("## A\n\n#### B")),
    "two titles": (HEADINGS, text("# Again")),
    "no title": (HEADINGS, edited(0, source="running all cells takes about 10 s\n\n## A")),
    "an absolute path": (PLACE, code("open('/tmp/x')", printed("1"))),
    "a drive": (PLACE, code(r"open('C:\x')", printed("1"))),
    "a download": (PLACE, code("get('https://example.org')", printed("1"))),
    "details not rendered": (DETAILS, text("<details>\n<summary>A</summary>\nx\n</details>")),
    "details left open": (DETAILS, text("<details>\n<summary>A</summary>\n\nx")),
    "an image without words": (DETAILS, text("![](https://example.org/x.png)")),
    "a link to nowhere": (LINKS, text("See [the next](02_nowhere.ipynb).")),
    "a picture from nowhere": (LINKS, text('<img src="nowhere.png" alt="a b c d e">')),
    "no time": (TIME, edited(0, source="# 01 · Made")),
    "an old time": (TIME, edited(0, source="# M\n\nrunning all cells takes about 20 s")),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_notebook_is_refused_by_its_guard(tmp_path: Path, record: Path, what: str) -> None:
    guard, make = BAD[what]
    assert refusing(saved(tmp_path, *make())) == [guard]


def test_a_large_notebook_is_refused(tmp_path: Path, record: Path) -> None:
    path = saved(tmp_path, *text("x" * guards.MOST_BYTES)())
    assert refusing(path) == ["test_is_a_valid_notebook_for_any_python_kernel"]


def test_links_that_lead_somewhere_pass(tmp_path: Path, record: Path) -> None:
    (tmp_path / "other.md").write_text("x")
    words = (
        "[a](other.md), [b](other.md#part), [c](https://example.org), [d](#next), `x[0](y)` and\n"
        "\n```python\nfunctions[1](nowhere)\n```\n"
    )
    assert refusing(saved(tmp_path, *text(words)())) == []


def test_an_error_that_a_cell_is_meant_to_raise_must_be_shown_in_words(
    tmp_path: Path, record: Path
) -> None:
    """Stored errors are refused even where a tag allows them: caught and printed they are read."""
    path = saved(tmp_path, *code("1 / 0", error(), tags=("raises-exception",))())
    assert NOT_RUN in refusing(path)


# ---- what is read off a page

EXERCISE = [
    cell("import torch", printed("1")),
    cell("def double(x):\n    ..."),
    cell('check("01.1", double)', printed("not yet")),
    v4.new_markdown_cell("<details>\n<summary>Hint</summary>\n\nAdd it.\n\n</details>"),
    v4.new_markdown_cell(
        '<details id="solution-01.1">\n<summary>Solution</summary>\n\n'
        "```python\ndef double(x):\n    return x + x\n```\nSince.\n\n</details>"
    ),
]


def test_an_exercise_is_found_with_stub_hint_and_solution() -> None:
    found = course.exercises(notebook(*EXERCISE))
    assert list(found) == ["01.1"]
    assert found["01.1"].name == "double"
    assert found["01.1"].stub == "def double(x):\n    ..."
    assert "Add it." in found["01.1"].hint
    assert found["01.1"].solution == "def double(x):\n    return x + x\n"


def test_a_check_or_a_solution_given_twice_is_refused() -> None:
    for place in (2, 4):
        with pytest.raises(AssertionError, match=r"twice|two solutions"):
            course.exercises(notebook(*EXERCISE, deepcopy(EXERCISE[place])))
