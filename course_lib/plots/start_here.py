"""The figures of notebook 00: scenes with answers, two networks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from course_lib.plots.style import BLUE, DPI, ORANGE, SMALL, WIDTH

# The full network is always blue and plain, the pruned one orange and hatched.
LOOK = {
    "full": {"color": BLUE},
    "pruned": {"color": ORANGE, "hatch": "//", "edgecolor": "black", "linewidth": 0.6},
}


def scenes_figure(
    images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4, height: float = 1.8
) -> Figure:
    """Images in a grid, each under its title; no alt text yet. images: uint8 [H, W, 3] each.

    height: of a row, in inches. Small on purpose: noise doesn't compress.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(WIDTH, height * rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, title in zip(grid, images, titles, strict=False):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title, fontsize=SMALL)
    return figure


def side_by_side(panels: Mapping[str, tuple[float, float, str]]) -> Figure:
    """A panel per quantity with a bar for the full and one for the pruned network.

    panels: title → (full, pruned, format of the numbers). The alt text has a ≈ before floats,
    which are measured, and none before whole numbers, which are counted.
    """
    figure = Figure(figsize=(WIDTH, 3.2), dpi=DPI, layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, (full, pruned, form)) in zip(row, panels.items(), strict=True):
        for place, (name, value) in enumerate({"full": full, "pruned": pruned}.items()):
            axes.bar(place, value, width=0.62, **LOOK[name])  # type: ignore[arg-type]
            axes.annotate(
                format(value, form), (place, value), xytext=(0, 2), textcoords="offset points",
                ha="center", va="bottom", fontsize=SMALL,
            )  # fmt: skip
        axes.set_xticks([0, 1], ["full", "pruned"], fontsize=SMALL)
        axes.set_title(title, fontsize=SMALL)
        axes.set_yticks([])
        axes.margins(y=0.12)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.set_label(
        f"{len(panels)} pairs of bars, the full network and the pruned one. "
        + "; ".join(
            f"{title}: {_told(full, form)} and {_told(pruned, form)}"
            for title, (full, pruned, form) in panels.items()
        )
        + "."
    )
    return figure


def _told(value: float, form: str) -> str:
    return f"{'' if isinstance(value, int) else '≈'}{value:{form}}"


def both_answers(
    figure: FigureBase,
    image: np.ndarray,
    classes: Sequence[str],
    shares: Mapping[str, Sequence[float]],
) -> None:
    """One image, and beside it how sure each network is of each class.

    image: uint8 [H, W, 3]. shares: network → share of each class, from 0 to 1.
    """
    axes: Sequence[Axes] = figure.subplots(1, 2, width_ratios=[1, 1.6])
    picture, bars = axes
    picture.imshow(image, interpolation="nearest")
    picture.axis("off")
    for offset, (name, values) in zip((-0.2, 0.2), shares.items(), strict=True):
        places = np.arange(len(classes)) + offset
        bars.barh(places, values, height=0.38, label=name, **LOOK[name])  # type: ignore[arg-type]
    bars.set_yticks(range(len(classes)), classes, fontsize=SMALL)
    bars.set_xlim(0, 1)
    bars.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"], fontsize=SMALL)
    bars.invert_yaxis()
    bars.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=SMALL, frameon=False)
