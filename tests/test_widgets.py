"""Widgets: a control that is moved changes the picture; and what stands where none can show."""

from __future__ import annotations

import sys
from typing import Any

import ipywidgets
import pytest

from course_lib import widgets
from course_lib.plots.style import alt_text
from course_lib.widgets import Choice, Slider, bar, build, explore, twin


def draw(figure: Any, steps: int, way: str) -> None:
    axes = figure.subplots()
    axes.plot([0, steps], [0, 1 if way == "up" else -1])
    if steps == 9:
        raise ValueError("9 is <too> much")
    figure.set_label(f"a line that goes {way} for {steps} steps.")


CONTROLS = {
    "steps": Slider("steps", 1, 10, 3),
    "way": Choice("way", [("upwards", "up"), ("downwards", "down")], "up"),
}


@pytest.fixture
def box() -> Any:
    return build(draw, size=(3, 2), **CONTROLS)


def test_a_widget_begins_with_its_first_picture(box: Any) -> None:
    steps, way, picture, caption = box.children
    assert (steps.value, way.value) == (3, "up")
    assert bytes(picture.value).startswith(b"\x89PNG")
    assert "goes up for 3 steps." in caption.value


def test_moving_a_control_changes_picture_and_caption(box: Any) -> None:
    steps, way, picture, caption = box.children
    seen = [bytes(picture.value)]
    steps.value = 7
    seen.append(bytes(picture.value))
    assert "goes up for 7 steps." in caption.value
    way.value = "down"
    seen.append(bytes(picture.value))
    assert "goes down for 7 steps." in caption.value
    assert len(set(seen)) == 3
    steps.value, way.value = 3, "up"
    assert bytes(picture.value) == seen[0], "the same settings give the same picture"


def test_an_error_while_drawing_becomes_a_sentence_and_passes(box: Any) -> None:
    steps, _, _, caption = box.children
    steps.value = 9
    assert "ValueError: 9 is &lt;too&gt; much" in caption.value
    steps.value = 4
    assert "ValueError" not in caption.value and "for 4 steps." in caption.value


def test_sliders_are_whole_only_if_all_their_numbers_are() -> None:
    assert isinstance(Slider("n", 0, 10, 5).make(), ipywidgets.IntSlider)
    slider = Slider("rate", 0.01, 1.2, 0.1, 0.01).make()
    assert isinstance(slider, ipywidgets.FloatSlider)
    assert (slider.min, slider.max, slider.value, slider.step) == (0.01, 1.2, 0.1, 0.01)
    assert slider.continuous_update is False


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(widgets, "display", lambda thing, raw=False: found.append(thing))
    return found


def test_a_widget_shows_a_sentence_where_it_cannot_move(displayed: list[Any]) -> None:
    explore(draw, size=(3, 2), **CONTROLS)
    (data,) = displayed
    assert data["text/plain"] == widgets.AT_REST
    assert "application/vnd.jupyter.widget-view+json" in data


def test_older_widgets_are_shown_as_they_are(displayed: list[Any]) -> None:
    old = object()
    widgets._display(old, "words")
    assert displayed == [old]


def test_without_ipywidgets_a_sentence_points_to_the_next_figure(
    displayed: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    explore(draw, **CONTROLS)
    assert "need the package ipywidgets" in capsys.readouterr().out
    assert list(bar(range(3), "training")) == [0, 1, 2]
    assert displayed == []


def test_a_bar_goes_along_with_the_steps(displayed: list[Any], monkeypatch: Any) -> None:
    made: list[Any] = []
    real = ipywidgets.HBox

    def kept(children: Any) -> Any:
        made.extend(children)
        return real(children)

    monkeypatch.setattr(ipywidgets, "HBox", kept)
    seen = []
    for step in bar(iter("abc"), "training", total=3):
        progress, words = made
        seen.append((step, progress.value))
    assert seen == [("a", 0), ("b", 1), ("c", 2)]
    assert (progress.value, progress.max, progress.description) == (3, 3, "training")
    assert words.value == "3 of 3, 0 s left"
    assert displayed[0]["text/plain"] == "(training: 3 steps)"


def test_a_bar_is_lazy() -> None:
    drawn = []

    def steps() -> Any:
        for i in range(10):
            drawn.append(i)
            yield i

    for i in bar(steps(), "training", total=10):
        if i == 1:
            break
    assert drawn == [0, 1]


def test_the_twin_draws_each_setting_under_its_title() -> None:
    settings = {
        "Short": {"steps": 1, "way": "up"},
        "Long": {"steps": 8, "way": "up"},
        "Down": {"steps": 8, "way": "down"},
    }
    figure = twin(draw, settings)
    parts = {part.get_suptitle(): part for part in figure.subfigs}  # Matplotlib 3.8 goes by columns
    ends = [parts[title].axes[0].lines[0].get_xydata()[-1].tolist() for title in settings]
    assert ends == [[1, 1], [8, 1], [8, -1]]
    assert alt_text(figure) == (
        "Short: a line that goes up for 1 steps. Long: a line that goes up for 8 steps."
        " Down: a line that goes down for 8 steps."
    )
