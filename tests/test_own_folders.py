"""What cells of the notebooks do with answers and folders that aren't the course's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import course_notebooks as course
import numpy as np
import pytest
from test_exercises import notebook


def run_cell(number: str, piece: str, **space: Any) -> dict[str, Any]:
    """Run the one code cell that has this piece, with these names and the notebook's imports."""
    (source,) = (c.source for c in course.code_cells(notebook(number)) if piece in c.source)
    names: dict[str, Any] = {"__name__": "cell"}
    exec(course.setup_source(notebook(number)), names)
    names |= space
    exec(source, names)
    return names


@pytest.mark.parametrize("kind", [np.int64, np.asarray])
def test_batches_may_be_a_whole_number_of_numpys(kind: Any) -> None:
    space = {"phases": [], "SHAPE": (), "pruned": None, "TOTAL": 160}
    space |= {"measure": SimpleNamespace(count_macs=lambda *_: 1), "choose": lambda _, own: own}
    names = run_cell("07", "LONG = ", equal_compute_batches=lambda *_: kind(544), **space)
    assert type(names["LONG"]) is int  # as torch's schedule wants it


@pytest.mark.parametrize(("images", "tolerance"), [(10, 0.2), (72, 2 / 72), (1_000, 0.02)])
def test_one_image_less_is_tolerated_where_all_were_right(images: int, tolerance: float) -> None:
    space = {"history": [{"val": 1.0, "macs": 2}], "truth": [0] * images, "networks": [None]}
    space |= {"choose_round": lambda *_: 0, "full": None, "accuracy": lambda *_: 1.0}
    loader = SimpleNamespace(batches=lambda _: None)
    names = run_cell("09", "tolerance = max(", loader=loader, told=lambda *_: None, **space)
    assert names["tolerance"] == pytest.approx(tolerance)


def some_data(notes: tuple[str, ...] = (), labels: tuple[int, ...] = (0, 1)) -> Any:
    part = SimpleNamespace(labels=np.array(labels))
    return SimpleNamespace(notes=notes, classes="abc", train=part, val=part, test=part)


def test_limits_of_the_cells_own_are_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    data = some_data(("train: 600 images were asked for, 8 are there.", "2 images are copies."))
    sets = SimpleNamespace(load=lambda *_, **__: data)
    run_cell("09", "LIMITS = {} if DRAWN", DRAWN=False, FOLDER="", SIZE=32, data_sets=sets)
    assert capsys.readouterr().out == "- 2 images are copies.\n"


def test_chance_on_fresh_images_is_of_the_classes_that_the_test_has() -> None:
    told: list[Any] = []
    space = {"bar": lambda *_: (), "wrong": {}, "watch": None, "data": some_data()}
    space |= {"show": lambda *given: told.extend(given)}
    run_cell("09", "figure = trainings(", trainings=lambda _, chance: chance, **space)
    assert told[0] == 1 / 2 and "at one in 2 (of the classes that the test has)" in told[1]
