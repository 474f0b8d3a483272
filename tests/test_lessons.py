"""What a notebook calls: progress, predictions, the choice of an answer, figures with captions."""

from __future__ import annotations

import io
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from course_notebooks import NOTEBOOKS, code_cells, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from course_lib.errors import CourseError
from course_lib.lessons import catalogue, check, choose, expect, predict, progress, show
from course_lib.lessons.course_map import ALL_OF_IT, STOPS, course_map, course_table
from course_lib.lessons.prediction import Prediction, Question
from course_lib.lessons.start_here import share_left
from course_lib.plots.style import PURPLE, RED, SCREEN_DPI, alt_text, blank, finish, png

SHOW = sys.modules["course_lib.lessons.show"]  # the package's own `show` is the function


# ---- progress


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Progress is kept, and in a file of the test's own."""
    monkeypatch.setenv(progress.SWITCH, "on")
    monkeypatch.setattr(progress, "path", lambda: tmp_path / "progress.json")
    return tmp_path / "progress.json"


def test_nothing_is_written_under_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "path", lambda: tmp_path / "progress.json")
    progress.record("00.1", "passed")
    check("00.1", share_left)
    predict("00.p1", 2)
    assert list(tmp_path.iterdir()) == []
    assert progress.read() == {}


def test_progress_lies_beside_the_notebooks() -> None:
    assert progress.path() == Path(__file__).resolve().parent.parent / "notebooks/progress.json"


def test_checks_and_predictions_are_noted(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check("00.1", None)
    predict("00.p1", None)
    predict("00.p1", ...)
    assert not file.exists(), "what was not attempted is not noted"
    check("00.1", lambda before, after: before / after)
    assert progress.read() == {"00.1": "not yet"}
    predict("00.p1", 2)
    check("00.1", share_left)
    assert json.loads(file.read_text(encoding="utf-8")) == {"00.1": "passed", "00.p1": "passed"}
    capsys.readouterr()


def test_the_answers_that_a_notebook_gives_are_not_the_learners(file: Path) -> None:
    check("00.1", lambda before, after: 1 - after / before, keep=False)
    assert not file.exists()
    for path in NOTEBOOKS:
        for cell in code_cells(read(path)):
            for given in re.findall(r"^check\((?!.*, \w+\)$).*", cell.source, re.MULTILINE):
                assert "keep=False" in given, f"{path.name}: {given}"


def test_what_was_passed_stays_passed(file: Path) -> None:
    progress.record("00.1", "passed")
    progress.record("00.1", "not yet")
    assert progress.read() == {"00.1": "passed"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"3"])
def test_a_broken_file_is_begun_anew(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert progress.read() == {}
    progress.record("00.1", "passed")
    assert progress.read() == {"00.1": "passed"}


@pytest.mark.parametrize("place", ["not/there/progress.json", "a file/progress.json", "a folder"])
def test_where_nothing_can_be_written_the_lesson_goes_on(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "a folder").mkdir()
    monkeypatch.setattr(progress, "path", lambda: tmp_path / place)
    progress.record("00.1", "passed")
    assert progress.read() == {}


def test_the_table_counts_by_notebook(file: Path) -> None:
    file.write_text('{"01.1": "passed", "01.2": "not yet", "02.1": "passed"}', encoding="utf-8")
    titles = {"01": "one", "02": "two", "03": "three"}
    lines = progress.table(["02.1", "01.2", "01.1", "01.p1"], titles).splitlines()
    assert [line.split() for line in lines] == [
        ["01", "one", "■□□", "1", "of", "3", "tried:", "01.2"],
        ["02", "two", "■", "1", "of", "1"],
    ]


def test_the_table_says_when_nothing_is_kept() -> None:
    assert "No progress is kept here" in progress.table(["01.1"], {"01": "one"})


# ---- the learner's answer or the course's; what doesn't exist


def test_the_learners_function_is_taken_once_it_is_right() -> None:
    def mine(before, after):
        return after * (1 / before)

    assert choose("00.1", mine) is mine
    assert choose("00.1", lambda before, after: 0) is share_left


def test_what_the_course_does_not_have_is_said() -> None:
    for name in ("00.99", "77.1", "nonsense", ""):
        with pytest.raises(CourseError, match="The course has no exercise"):
            check(name, None)
        with pytest.raises(CourseError, match="The course asks no question"):
            predict(name, None)


def test_solutions_can_be_read_as_code() -> None:
    assert catalogue.source("00.1").startswith("def share_left(")


# ---- predictions

SHARE = Question("99.p1", "Share that is left")
WHICH = Question("99.p2", "Which is faster", choices=("wide", "narrow"))


@pytest.mark.parametrize("guess", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_numbers_of_any_kind_are_guesses(guess: Any) -> None:
    assert SHARE.accept(guess) == float(guess)


@pytest.mark.parametrize(
    "guess", [80, -0.1, float("nan"), True, "0.5", [0.5], 1j, torch.tensor(0.5)]
)
def test_what_can_be_no_guess_is_refused_with_the_range(guess: Any) -> None:
    with pytest.raises(CourseError, match=r"Prediction 99\.p1 is a number from 0 to 1, not "):
        SHARE.accept(guess)


def test_no_guess_yet() -> None:
    assert SHARE.accept(None) is None and SHARE.accept(...) is None


@pytest.mark.parametrize("guess", ["wider", 1, ["wide"], np.array(["wide", "narrow"])])
def test_a_choice_is_one_of_those_named(guess: Any) -> None:
    assert WHICH.accept("wide") == "wide"
    with pytest.raises(CourseError, match="is one of 'wide', 'narrow', not"):
        WHICH.accept(guess)


@pytest.mark.parametrize("typed", ["Wide", " wide ", "WIDE\n"])
def test_a_choice_may_be_typed_in_other_letters(typed: str) -> None:
    assert WHICH.accept(typed) == "wide"


def test_a_mistyped_guess_is_told_so_and_takes_the_place_of_the_one_before(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prediction = predict("00.p1", 2)
    prediction = predict("04.p2", 25)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed == (
        "Prediction 04.p2 is a number from 0 to 1, not 25. Write 25 % as 0.25."
        " Correct the cell, and run it again."
    )
    assert (prediction.question.id, prediction.guess) == ("04.p2", None)
    assert progress.read() == {"00.p1": "passed"}, "what is no guess isn't noted"
    predict("00.p1", 25)
    assert "Write 25 %" not in capsys.readouterr().out


def test_a_guess_is_a_line_like_no_other_with_its_name() -> None:
    for along, expected in (("y", ([0, 1], [0.4, 0.4])), ("x", ([0.4, 0.4], [0, 1]))):
        _, axes = blank("x", "y")
        Prediction(SHARE, 0.4).draw(axes, along)
        (line,) = axes.lines
        assert (list(line.get_xdata()), list(line.get_ydata())) == expected
        assert line.is_dashed() and line.get_color() == PURPLE
        assert [text.get_text() for text in axes.get_legend().texts] == ["your prediction"]


def legend_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().texts]


def test_a_guess_is_named_once_beside_the_legend_that_is_there() -> None:
    _, axes = blank("x", "y")
    axes.plot([0, 1], [0, 1], label="measured")
    axes.legend()
    Prediction(SHARE, 0.4).draw(axes)
    assert legend_of(axes) == ["measured", "your prediction"]
    figure, axes = blank("x", "y")
    axes.plot([0, 1], [0, 1], label="measured")
    finish(figure, axes, "A figure with a legend below it")
    Prediction(SHARE, 0.4).draw(axes)
    assert legend_of(axes) == ["your prediction"]


def test_a_guess_drawn_before_the_legend_below_is_named_there_alone() -> None:
    figure, axes = blank("x", "y")
    axes.plot([0, 1], [0, 1], label="measured")
    Prediction(SHARE, 0.4).draw(axes)
    finish(figure, axes, "A figure with a legend below it")
    assert axes.get_legend() is None
    (below,) = figure.legends
    assert [text.get_text() for text in below.texts] == ["measured", "your prediction"]
    dashes = below.get_lines()[1].get_linestyle(), below.handlelength
    assert dashes == ("--", 3.2), "a handle of the usual length shows one dash, as a solid line"


@pytest.mark.parametrize("prediction", [Prediction(SHARE, None), Prediction(WHICH, "wide")])
def test_without_a_number_nothing_is_drawn(prediction: Prediction) -> None:
    _, axes = blank("x", "y")
    prediction.draw(axes)
    assert len(axes.lines) == 0 and axes.get_legend() is None


@pytest.mark.parametrize(
    ("prediction", "measured", "line"),
    [
        (Prediction(SHARE, 0.4), 0.8, "Share that is left: ≈80%; you predicted 40%."),
        (Prediction(SHARE, 0.78), 0.8, "Share that is left: ≈80%; you predicted 78%, close."),
        (Prediction(WHICH, "wide"), "wide", "Which is faster: wide; as you predicted."),
        (Prediction(WHICH, "wide"), "narrow", "Which is faster: narrow; you predicted wide."),
        (
            Prediction(SHARE, None),
            0.8,
            "Share that is left: ≈80%. (No prediction yet: make one above, and run again.)",
        ),
    ],
)
def test_guess_and_answer_stand_side_by_side(
    prediction: Prediction, measured: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prediction.compare(measured)
    assert capsys.readouterr().out == textwrap.fill(line, SHOW.COLUMNS) + "\n"


# ---- figures and measured numbers


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What was handed to the notebook: (data, metadata)."""
    found: list[tuple[Any, Any]] = []
    monkeypatch.setattr(SHOW, "display", lambda data, metadata, raw: found.append((data, metadata)))
    return found


def test_a_figure_is_shown_with_its_caption_as_alt_text(
    displayed: list[tuple[Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    figure, axes = blank("x", "y", (4, 2))
    axes.plot([0, 1])
    caption = "a line that rises from 0 to 1, " * 5 + "and stops."
    show(figure, f" {caption} ")
    data, metadata = displayed[0]
    assert data["image/png"].startswith(b"\x89PNG")
    assert data["text/plain"] == "<figure, 4 by 2 inches>"
    assert metadata == {"image/png": {"alt": caption, "width": 384}}
    printed = capsys.readouterr().out
    assert " ".join(printed.split()) == f"Figure: {caption}"
    assert max(map(len, printed.splitlines())) <= SHOW.COLUMNS


def test_a_figure_may_bring_its_own_alt_text(displayed: list[tuple[Any, Any]]) -> None:
    figure, _ = blank("x", "y")
    figure.set_label("Empty axes with an x and a y.")
    show(figure)
    assert displayed[0][1]["image/png"]["alt"] == "Empty axes with an x and a y."


@pytest.mark.parametrize("caption", [None, "", "  \n"])
def test_a_figure_without_words_is_refused(caption: str | None) -> None:
    with pytest.raises(CourseError, match="A figure needs a caption"):
        show(Figure(), caption)


def test_the_same_figure_gives_the_same_bytes() -> None:
    figures = [blank("x", "y")[0] for _ in range(2)]
    assert png(figures[0]) == png(figures[1])


@pytest.mark.parametrize("images", [False, True])
def test_a_stored_picture_looks_as_drawn_in_fewer_bytes(images: bool) -> None:
    figure, axes = blank("x", "y", (4, 2))
    axes.plot([0, 47], [0, 47], color=RED, lw=4)
    if images:
        axes.imshow(np.linspace(0, 1, 48 * 48 * 3).reshape(48, 48, 3))
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=SCREEN_DPI)
    small = png(figure)
    assert len(small) < 0.7 * len(plain.getvalue())
    stored, drawn = (
        np.asarray(Image.open(file).convert("RGB"), dtype=int)
        for file in (io.BytesIO(small), plain)
    )
    # Antialiased edges of text may shift a little; the line and the ground keep their colours.
    assert abs(stored - drawn).mean() < 3
    line = np.array([int(RED[place : place + 2], 16) for place in (1, 3, 5)])
    assert (abs(stored - line).max(axis=2) <= 16).sum() > 50


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (0.93, "ok"),
        (0.98, "ok"),
        (0.95, "ok"),
        (0.9299, "outside: see the notes at the top"),
        (0.99, "outside: see the notes at the top"),
        (float("nan"), "outside: see the notes at the top"),
    ],
)
def test_a_measured_number_is_printed_with_its_range(
    value: float, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expect("accuracy", value, 0.93, 0.98)
    printed = capsys.readouterr().out
    assert printed == f"accuracy ≈{value:.3f} (expected 0.930 to 0.980): {verdict}\n"


# ---- the map


def test_the_map_holds_every_notebook_and_leads_to_each() -> None:
    assert [stop.number for stop in STOPS] == list(catalogue.LESSONS)
    for place, stop in enumerate(STOPS):
        before = {earlier.number for earlier in STOPS[:place]}
        assert set(stop.needs) <= before
        assert stop.needs or stop.number == "00"
    skipped = {stop.number for stop in STOPS if stop.optional == ALL_OF_IT}
    assert not any(skipped & set(stop.needs) for stop in STOPS), "what is optional isn't needed"


def test_picture_and_table_say_the_same() -> None:
    lines = course_table().splitlines()
    assert len(lines) == 2 + len(STOPS) and {line.count("|") for line in lines} == {5}
    assert lines[5] == (
        "| 03 vanishing gradients | 02 | derivatives and the chain rule | all of it |"
    )
    figure = course_map()
    drawn = [text.get_text().split("\n")[0] for text in figure.axes[0].texts]
    assert [words[:2] for words in drawn[:-1]] == list(catalogue.LESSONS)
    boxes = [patch for patch in figure.axes[0].patches if patch.get_linestyle() == "--"]
    assert len(boxes) == 1
    assert "03 vanishing gradients needs 02;" in alt_text(figure)
    assert alt_text(figure).endswith("whole: 03. With optional parts: 01, 05, 07, 08.")


def test_no_box_of_the_map_hides_another_and_all_text_fits() -> None:
    figure = course_map()
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [p.get_window_extent() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    assert len(boxes) == len(STOPS)
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:place])
    for text, box in zip(axes.texts, boxes, strict=False):
        extent = text.get_window_extent()
        assert box.x0 <= extent.x0 and extent.x1 <= box.x1
        assert box.y0 <= extent.y0 and extent.y1 <= box.y1
