"""The interactive version of a figure, and its static twin for where widgets can't show.

Both come from one function, draw(figure, **values), which draws on an empty figure (or a part of
one) and gives it its alt text with figure.set_label(…).
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from IPython.display import display
from matplotlib.figure import Figure

from course_lib.plots.style import LARGE, SCREEN_DPI, png

Draw = Callable[..., None]
Item = TypeVar("Item")
SIZE = (8.0, 4.0)  # inches
_WIDE = {"description_width": "initial"}
AT_REST = "(A widget: it moves once the cells have been run. The next figure shows it at rest.)"


@dataclass(frozen=True)
class Slider:
    """A number from `low` to `high`; whole numbers if all of its numbers are."""

    label: str
    low: float
    high: float
    start: float
    step: float = 1

    def make(self) -> Any:
        """The ipywidgets control."""
        import ipywidgets

        numbers = (self.low, self.high, self.start, self.step)
        whole = all(isinstance(number, int) for number in numbers)
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        return kind(
            value=self.start,
            min=self.low,
            max=self.high,
            step=self.step,
            description=self.label,
            continuous_update=False,  # a picture per drag, not one per pixel of it
            style=_WIDE,
            layout={"width": "480px"},
        )


@dataclass(frozen=True)
class Choice:
    """One of `options`: names, or (name, value) pairs."""

    label: str
    options: Sequence[Any]
    start: Any

    def make(self) -> Any:
        """The ipywidgets control."""
        import ipywidgets

        return ipywidgets.Dropdown(
            options=list(self.options),
            value=self.start,
            description=self.label,
            style=_WIDE,
            layout={"width": "480px"},
        )


def explore(draw: Draw, *, size: tuple[float, float] = SIZE, **controls: Slider | Choice) -> None:
    """Show sliders and menus, and below them the figure, drawn again whenever one is moved.

    Where ipywidgets is missing, a sentence says so: the static twin stands beside it anyway.
    """
    try:
        box = build(draw, size=size, **controls)
    except ImportError:
        print("Widgets need the package ipywidgets; the next figure shows the same at rest.")
        return
    _display(box, AT_REST)


def bar(steps: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Go through `steps` with a progress bar and the time that is left; as a generator, lazily.

    total: how many there are, where len(steps) doesn't tell. Without ipywidgets there is no bar.
    """
    count = total if total is not None else len(steps)  # type: ignore[arg-type]
    try:
        import ipywidgets
    except ImportError:
        yield from steps
        return
    made = ipywidgets.IntProgress(max=count, description=label, style=_WIDE)
    words = ipywidgets.Label()
    _display(ipywidgets.HBox([made, words]), f"({label}: {count} step{'s' * (count != 1)})")
    started = time.perf_counter()
    for done, step in enumerate(steps, start=1):
        yield step
        made.value, used = done, time.perf_counter() - started
        words.value = f"{done} of {count}, {used * (count - done) / done:.0f} s left"


def build(draw: Draw, *, size: tuple[float, float] = SIZE, **controls: Slider | Choice) -> Any:
    """The widget itself: controls, picture, and the picture's alt text as a caption.

    An Image widget and not an Output: the latter stalls some of the tools that run notebooks.
    """
    import ipywidgets

    made = {name: control.make() for name, control in controls.items()}
    picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
    caption = ipywidgets.HTML()

    def update(_: Any = None) -> None:
        values = {name: control.value for name, control in made.items()}
        try:
            picture.value, text = _drawn(draw, size, values)
        except Exception as error:  # shown to the learner: a callback's traceback goes nowhere
            text = f"{type(error).__name__}: {error}"
        width = f"max-width:{size[0] * SCREEN_DPI:.0f}px"
        caption.value = f"<div style='{width}'>{html.escape(text)}</div>"

    for control in made.values():
        control.observe(update, names="value")
    update()
    return ipywidgets.VBox([*made.values(), picture, caption])


def twin(
    draw: Draw,
    settings: Mapping[str, Mapping[str, Any]],
    *,
    size: tuple[float, float] = SIZE,
    columns: int = 2,
) -> Figure:
    """The static figure: the widget's picture for some settings, side by side, each with its title.

    settings: title → values. size: of the whole figure. Its alt text joins those of its parts.
    """
    rows = -(-len(settings) // columns)
    figure = Figure(figsize=size, dpi=SCREEN_DPI, layout="constrained")
    parts = figure.subfigures(rows, columns, squeeze=False).ravel()
    words = []
    for part, (title, values) in zip(parts, settings.items(), strict=False):
        draw(part, **values)
        part.suptitle(title, fontsize=LARGE)
        words.append(f"{title}: {part.get_label()}")
    figure.set_label(" ".join(words))
    return figure


def _display(box: Any, words: str) -> None:
    """Show a widget, and `words` where it can't show: its own text would be a page of bytes."""
    bundle = getattr(box, "_repr_mimebundle_", None)
    if bundle is None:  # ipywidgets 7
        display(box)
        return
    data = bundle(include=None, exclude=None)
    data = data[0] if isinstance(data, tuple) else data
    display({**data, "text/plain": words}, raw=True)


def _drawn(draw: Draw, size: tuple[float, float], values: dict[str, Any]) -> tuple[bytes, str]:
    figure = Figure(figsize=size, dpi=SCREEN_DPI, layout="constrained")
    draw(figure, **values)
    return png(figure), str(figure.get_label())
