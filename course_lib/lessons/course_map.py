"""The map of the course: what each notebook needs, and what of it is optional depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib.lessons.catalogue import LESSONS
from course_lib.plots.style import BLACK, BLUE, DPI, SMALL, WIDTH

ALL_OF_IT = "all of it"


@dataclass(frozen=True)
class Stop:
    """One notebook on the map.

    needs: the numbers of the notebooks right before it. beside: what else its reader brings along.
    optional: what a first reading can leave out. place: column and row on the map.
    """

    number: str
    needs: tuple[str, ...]
    beside: str
    optional: str
    place: tuple[float, float]

    @property
    def title(self) -> str:
        """The notebook's name in words."""
        return LESSONS[self.number].replace("_", " ")


STOPS = (
    Stop("00", (), "reading Python", "", (0, 0)),
    Stop("01", ("00",), "straight lines; what a derivative is", "second derivatives", (1, 0)),
    Stop("02", ("01",), "", "", (2, 0)),
    Stop("03", ("02",), "derivatives and the chain rule", ALL_OF_IT, (3, 0)),
    Stop("04", ("02",), "", "", (2, 1)),
    Stop("05", ("04",), "", "scores from gradients; Hessian diagonals; clustering", (3, 1)),
    Stop("06", ("05",), "", "", (4, 1)),
    Stop("07", ("06",), "mean and spread", "rewound lottery tickets", (2, 2)),
    Stop("08", ("06",), "", "8-bit integers; export to ONNX", (3, 2)),
    Stop("09", ("06",), "a folder of images, if you have one", "", (4, 2)),
)


def course_table(stops: Sequence[Stop] = STOPS) -> str:
    """The map as a Markdown table."""
    lines = ["| notebook | needs | and from you | optional depth |", "|---|---|---|---|"]
    for stop in stops:
        needs = ", ".join(stop.needs) or "–"
        lines.append(
            f"| {stop.number} {stop.title} | {needs} | {stop.beside or '–'}"
            f" | {stop.optional or '–'} |"
        )
    return "\n".join(lines)


def course_map(stops: Sequence[Stop] = STOPS) -> Figure:
    """The map as a picture: a box per notebook, an arrow to each that needs it.

    A dashed border: the whole notebook is optional. A ◇: parts of it are.
    """
    figure = Figure(figsize=(WIDTH, 3.3), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.5, 4.5), ylim=(2.5, -0.5))
    axes.axis("off")
    places = {stop.number: stop.place for stop in stops}
    for stop in stops:
        for needed in stop.needs:
            _arrow(axes, places[needed], stop.place)
        _box(axes, stop)
    key = "arrow: needed before\ndashed box: optional\n◇: holds optional parts"
    axes.text(0.5, 1.5, key, fontsize=SMALL, ha="center", va="center", linespacing=1.6)
    figure.set_label(_map_words(stops))
    return figure


HALF_WIDTH, HALF_HEIGHT = 0.41, 0.27


def _box(axes: Axes, stop: Stop) -> None:
    x, y = stop.place
    whole = stop.optional == ALL_OF_IT
    box = FancyBboxPatch(
        (x - HALF_WIDTH, y - HALF_HEIGHT),
        2 * HALF_WIDTH,
        2 * HALF_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor="white" if whole else "#DCEBF5",
        edgecolor=BLACK if whole else BLUE,
        linestyle="--" if whole else "-",
        linewidth=1.4,
    )
    axes.add_patch(box)
    mark = " ◇" if stop.optional and not whole else ""
    words = stop.title.split()
    middle = (len(words) + 1) // 2
    name = " ".join(words[:middle]) + "\n" + " ".join(words[middle:])
    axes.text(x, y, f"{stop.number}{mark}\n{name}", fontsize=SMALL, ha="center", va="center")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From edge to edge: level arrows along a row, the others from a box's bottom to a top."""
    (x1, y1), (x2, y2) = start, end
    if y1 == y2:
        start, end = (x1 + HALF_WIDTH, y1), (x2 - HALF_WIDTH, y2)
    else:
        start, end = (x1, y1 + HALF_HEIGHT), (x2, y2 - HALF_HEIGHT)
    arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, color=BLACK, lw=1.1)
    axes.add_patch(arrow)


def _map_words(stops: Sequence[Stop]) -> str:
    """Which notebook needs which, and what is optional, for who can't see the picture."""
    parts = [
        f"{stop.number} {stop.title} needs {' and '.join(stop.needs) or 'nothing'}"
        for stop in stops
    ]
    whole = ", ".join(stop.number for stop in stops if stop.optional == ALL_OF_IT)
    some = ", ".join(stop.number for stop in stops if stop.optional not in ("", ALL_OF_IT))
    return (
        f"Map of the {len(stops)} notebooks. {'; '.join(parts)}."
        f" Optional as a whole: {whole}. With optional parts: {some}."
    )
