"""The figures of notebook 02: a convolution in numbers, a block and a whole network in shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle
from torch import Tensor

from course_lib.plots.style import BLACK, BLUE, LARGE, NORMAL, ORANGE, RED, SKY, SMALL

Shape = tuple[int, ...]
PALE = "#eef4f9"
MAIN = ("conv 3×3", "batch norm\nReLU", "conv 3×3", "batch norm")  # the boxes of the main path
STEP, HALF = 1.7, 0.55  # from box to box; half the width of a box


def draw_grid(axes: Axes, values: Tensor, title: str, marked: tuple[int, int, int]) -> None:
    """A matrix with its numbers, and a frame around a square of it: (row, column, size)."""
    rows, columns = values.shape
    for i in range(rows):
        for j in range(columns):
            axes.add_patch(Rectangle((j, i), 1, 1, fc=PALE, ec=BLACK, lw=0.6))
            number = f"{float(values[i, j]):g}".replace("-", "−")
            axes.annotate(number, (j + 0.5, i + 0.5), ha="center", va="center", fontsize=NORMAL)
    row, column, size = marked
    axes.add_patch(Rectangle((column, row), size, size, fill=False, ec=RED, lw=2.5))
    axes.set_xlim(-0.1, columns + 0.1)
    axes.set_ylim(rows + 0.1, -0.1)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title, fontsize=LARGE)


def words(shape: Shape) -> str:
    """(1, 64, 56, 56) → "64×56×56": channels, height, width."""
    return "×".join(str(size) for size in shape[1:])


def draw_block(axes: Axes, shapes: Mapping[str, Shape], projected: bool) -> None:
    """A basic block from left to right, with the shapes of what flows through it.

    shapes: of "input", "conv1", "conv2" and "shortcut", as real tensors had them. The addition is a
    plus sign where main path and shortcut have one shape, and a cross where they don't. The arrows
    of a projection are dashed.
    """
    fits = shapes["conv2"] == shapes["shortcut"]
    flowing = [shapes[name] for name in ("input", "conv1", "conv1", "conv2", "conv2")]
    for place, (text, shape) in enumerate(zip((*MAIN, ""), flowing, strict=True)):
        x = STEP * (place + 1)
        _arrow(axes, (x - STEP + (HALF if place else -0.1), 0), (x - (HALF if text else 0.27), 0))
        axes.annotate(words(shape), (x - STEP / 2, -0.62), ha="center", fontsize=SMALL)
        if text:
            _box(axes, (x, 0), text)
    end = STEP * (len(MAIN) + 1)
    _arrow(axes, (STEP * 0.12, 0), (STEP * 0.12, 1.3), head=False, dashed=projected)
    _arrow(axes, (STEP * 0.12, 1.3), (end, 1.3), head=False, dashed=projected)
    _arrow(axes, (end, 1.3), (end, 0.3), dashed=projected)
    if projected:
        _box(axes, (end / 2, 1.3), "conv 1×1\nbatch norm")
    axes.annotate(words(shapes["shortcut"]), (end - 0.1, 0.75), ha="right", fontsize=SMALL)
    _join(axes, end, fits)
    if fits:
        _arrow(axes, (end + 0.3, 0), (end + STEP - HALF, 0))
        _box(axes, (end + STEP, 0), "ReLU")
    axes.set_xlim(-0.3, end + STEP + 0.6)
    axes.set_ylim(-0.95, 1.85)
    axes.set_axis_off()


def _join(axes: Axes, x: float, fits: bool) -> None:
    """The addition: a plus sign, or a cross and why."""
    colour, sign = (BLUE, "+") if fits else (RED, "×")
    axes.plot(x, 0, "o", ms=22, mfc="white", mec=colour, mew=2)
    axes.annotate(
        sign, (x, -0.02), ha="center", va="center", color=colour, fontsize=17, weight="bold"
    )
    if not fits:
        axes.annotate("shapes differ:\nno addition", (x + 0.42, 0), va="center", fontsize=NORMAL)


def _box(axes: Axes, middle: tuple[float, float], text: str) -> None:
    x, y = middle
    shape = FancyBboxPatch(
        (x - HALF, y - 0.3),
        2 * HALF,
        0.6,
        boxstyle="round,pad=0",
        fc=PALE,
        ec=BLACK,
        lw=0.8,
        zorder=4,
    )
    axes.add_patch(shape)
    axes.annotate(text, middle, ha="center", va="center", fontsize=SMALL, zorder=5)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    head: bool = True,
    dashed: bool = False,
) -> None:
    style = "-|>" if head else "-"
    look = {"arrowstyle": style, "color": ORANGE if dashed else BLACK, "lw": 1.4}
    look |= {"ls": "--" if dashed else "-", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=look)


def draw_network(axes: Axes, rows: Sequence[tuple[str, Shape, str]]) -> None:
    """A network from left to right: a bar per part, taller for a larger image, and shortcuts above.

    rows: name, shape of the output and kind of the part: "block" has an identity shortcut,
    "projection" a projected one, "" none. The width of a bar grows with the number of channels.
    """
    tallest = max((shape[2] if len(shape) > 2 else 1) for _, shape, _ in rows)
    axes.axhline(0, color=BLACK, lw=0.8, zorder=0)
    for x, (name, shape, kind) in enumerate(rows):
        tall = 0.35 + 2.2 * (shape[2] / tallest if len(shape) > 2 else 0)
        wide = 0.2 + shape[1] ** 0.5 / 60
        colour = {"block": SKY, "projection": ORANGE}.get(kind, PALE)
        hatch = "xx" if kind == "projection" else ""
        axes.add_patch(
            Rectangle(
                (x - wide / 2, -tall / 2), wide, tall, fc=colour, ec=BLACK, hatch=hatch, lw=0.8
            )
        )
        if kind:
            curve = {"connectionstyle": "arc3,rad=-0.9", "arrowstyle": "-|>", "lw": 1.2}
            curve |= {"ls": "--" if kind == "projection" else "-", "color": BLACK}
            ends = (x + wide / 2 + 0.12, tall / 2), (x - wide / 2 - 0.12, tall / 2)
            axes.annotate("", *ends, arrowprops=curve)
        # Three short lines, so that neighbours don't meet: block 3, 128×, 28×28.
        text = f"{name}\n" + words(shape).replace("×", "×\n", 1)
        axes.annotate(text, (x, -1.4), va="top", ha="center", fontsize=SMALL)
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.set_ylim(-2.5, 1.9)
    axes.set_axis_off()
    _key(axes)


def _key(axes: Axes) -> None:
    """What the two looks of a block mean."""
    patches = [
        Patch(fc=SKY, ec=BLACK, label="solid arrow: identity"),
        Patch(fc=ORANGE, ec=BLACK, hatch="xx", label="hatched, dashed arrow: projection"),
    ]
    axes.legend(handles=patches, loc="upper right", ncols=2, fontsize=SMALL, frameon=False)
