"""The figures of notebook 05: how criteria agree, what a selection leaves, which filters go.

Plain data in; each function draws on a figure that it is given, or returns one with its alt text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from course_lib.plots.style import BLACK, BLUE, NORMAL, ORANGE, RED, SMALL, WIDTH, blank
from course_lib.pruning.criteria.cosine import Merge

MARKERS = (("o", "-", BLUE), ("s", "--", ORANGE), ("^", ":", RED), ("D", "-.", BLACK))
RULES = {"layer": "within each layer", "network": "across the network, relative scores"}


def agreement_figure(names: Sequence[str], values: np.ndarray) -> Figure:
    """Rank correlations [n, n] as a table of shades with the numbers written in; no alt text."""
    figure, axes = blank("", "", (7.0, 5.4))
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        axes.text(
            column,
            row,
            f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−"),
            ha="center",
            va="center",
            fontsize=SMALL - 1,  # else negative neighbours touch
            color="white" if value > 0.71 else BLACK,
        )
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=SMALL)
    axes.set_yticks(range(len(names)), names, fontsize=SMALL)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def widths_figure(shares: Mapping[str, Sequence[float]], names: Sequence[str]) -> Figure:
    """What is left of each layer, one line per way of choosing: {label: [share per layer]}."""
    figure, axes = blank("", "filters left", (WIDTH, 4.2))
    for (label, values), (marker, dashes, colour) in zip(shares.items(), MARKERS, strict=False):
        axes.plot(values, marker=marker, ls=dashes, color=colour, ms=5, lw=1.4, label=label)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=SMALL)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_ylim(0, 1.04)
    figure.legend(loc="outside upper left", ncols=len(shares), fontsize=SMALL, frameon=False)
    return figure


def comparison_figure(rows: Sequence[Mapping[str, Any]], full: float) -> Figure:
    """Accuracy after fine-tuning by criterion, one panel per way of selecting.

    rows: `selection`, `criterion`, `accuracy` (a list, one per network; of random one per draw), of
    one schedule. A bar stands at the mean; the lines are those of random and the full networks.
    """
    figure = Figure(figsize=(WIDTH, 4.7), dpi=100, layout="constrained")
    panels = figure.subplots(1, len(RULES), sharex=True, sharey=True)
    first = {row["criterion"]: row for row in rows if row["selection"] == "layer"}
    order = sorted(first, key=lambda name: float(np.mean(first[name]["accuracy"])))
    for axes, (rule, title) in zip(panels, RULES.items(), strict=True):
        found = {row["criterion"]: row for row in rows if row["selection"] == rule}
        for place, name in enumerate(order):
            if name in found:
                _dots(axes, place, found[name]["accuracy"], name == "random")
        axes.axvline(float(np.mean(found["random"]["accuracy"])), color=RED, ls="--", lw=1)
        axes.axvline(full, color=BLACK, ls=":", lw=1)
        axes.set_title(title, fontsize=NORMAL, loc="left")
        axes.set_yticks(range(len(order)), order, fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
        # Whole percents only: a tick at 92.5 % would be labelled 92 %.
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        axes.set_xlabel("validation accuracy", fontsize=NORMAL)
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    mark: dict[str, Any] = {"color": "white", "ls": "none", "ms": 5, "mec": BLACK, "mew": 0.8}
    legend = {
        "one network": Line2D([], [], marker="o", **mark),
        "one draw of random": Line2D([], [], marker="s", **mark),
        "mean": Line2D([], [], ls="none", marker="|", ms=11, mew=3, color=BLUE),
        "mean of random": Line2D([], [], color=RED, ls="--", lw=1),
        "full networks": Line2D([], [], color=BLACK, ls=":", lw=1),
    }
    look: dict[str, Any] = {"fontsize": SMALL, "frameon": False, "ncols": len(legend)}
    figure.legend(list(legend.values()), list(legend), loc="outside lower center", **look)
    return figure


def _dots(axes: Axes, place: int, values: Sequence[float], control: bool) -> None:
    marker, colour = ("s", RED) if control else ("o", BLUE)
    axes.plot([np.mean(values)] * 2, [place - 0.36, place + 0.36], color=colour, lw=3)
    axes.plot(values, [place] * len(values), marker, color="white", ms=5, mec=BLACK, mew=0.8)


def clusters_figure(
    names: Sequence[str], vectors: np.ndarray, merges: Sequence[Merge], cut: float
) -> Figure:
    """Filters of two weights as arrows, and the dendrogram of their merging.

    vectors: [filters, 2]; merges: the nearest first, of at most three clusters below the cut. Where
    two clusters merge, the line of the one that stays goes up and the other one ends; the filters
    that stay are bold.
    """
    stays = _survivors(len(names), merges, cut)
    left_over = sorted(set(stays))
    colours = dict(zip(left_over, (BLUE, RED, BLACK), strict=False))
    figure = Figure(figsize=(WIDTH, 3.4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for each, vector in enumerate(vectors):
        bold, place = stays[each] == each, vector * (1 + 0.17 / np.linalg.norm(vector))
        look = {"arrowstyle": "-|>", "color": colours[stays[each]], "lw": 2.6 if bold else 1.2}
        left.annotate("", vector, (0, 0), arrowprops={**look, "shrinkA": 0, "shrinkB": 0})
        weight = "bold" if bold else "normal"
        left.text(*place, names[each], ha="center", va="center", fontsize=NORMAL, weight=weight)
    far = 1.3 * float(np.abs(vectors).max())
    left.set(xlim=(-far, far), ylim=(-far, far), aspect="equal")
    left.set_xlabel("first weight", fontsize=SMALL)
    left.set_ylabel("second weight", fontsize=SMALL)
    _dendrogram(right, names, merges, cut)
    for axes in (left, right):
        axes.tick_params(axis="y", labelsize=SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    steps = ", ".join(f"{names[gone]} into {names[one]} at {at:.2f}" for gone, one, at in merges)
    figure.set_label(
        f"{len(names)} filters of two weights as arrows, and the dendrogram of their merging:"
        f" {steps}. The cut at {cut:g} leaves {len(left_over)} clusters, and of each the longest"
        f" filter stays: {', '.join(names[each] for each in left_over)}."
    )
    return figure


def _dendrogram(axes: Axes, names: Sequence[str], merges: Sequence[Merge], cut: float) -> None:
    order = _leaves(len(names), merges)
    heights, height = [0.0] * len(names), 0.0
    for gone, keeps, height in merges:
        places = [order.index(each) for each in (gone, keeps)]
        for each, place in zip((gone, keeps), places, strict=True):
            axes.plot([place] * 2, [heights[each], height], color="0.35", lw=1.6)
            heights[each] = height
        axes.plot(places, [height] * 2, color="0.35", lw=1.6)
    axes.plot([order.index(keeps)] * 2, [height, 1.1 * height], color="0.35", lw=1.6)
    axes.axhline(cut, color=ORANGE, ls="--", lw=2)
    axes.text(len(names) - 0.6, cut, "cut", ha="right", va="bottom", fontsize=SMALL)
    axes.set_xticks(range(len(names)), [names[each] for each in order], fontsize=NORMAL)
    axes.set_ylabel("cosine distance at the merge", fontsize=SMALL)
    axes.set_ylim(0, 1.1 * height)


def _leaves(count: int, merges: Sequence[Merge]) -> list[int]:
    """An order of the filters in which no two lines of the dendrogram cross."""
    rows = {each: [each] for each in range(count)}
    for gone, keeps, _ in merges:
        rows[keeps] = rows[keeps] + rows.pop(gone)
    return next(iter(rows.values()))


def _survivors(count: int, merges: Sequence[Merge], cut: float) -> list[int]:
    """For each filter the one that stays of its cluster, where the dendrogram is cut."""
    stays = list(range(count))
    for gone, keeps, height in merges:
        if height < cut:
            stays = [keeps if each == gone else each for each in stays]
    return stays


def filters_on(
    figure: FigureBase, weight: np.ndarray, scores: np.ndarray, gone: np.ndarray
) -> None:
    """The filters of a layer from the lowest score to the highest: bars left, pictures right.

    weight: [filters, inputs, h, w]; scores: [filters], the last of a clustering may be infinite;
    gone: [filters], whether it is removed. Filters with three inputs are shown in colour, others
    as their mean absolute weight per position.
    """
    order = np.argsort(scores, kind="stable")
    finite = scores[np.isfinite(scores)]
    heights = np.where(np.isfinite(scores), scores, 1.1 * finite.max())[order]
    left, right = figure.subplots(1, 2)
    bars = left.bar(range(len(order)), heights, color=BLUE, width=0.8)
    for bar, removed in zip(bars, gone[order], strict=True):
        if removed:
            bar.set(facecolor="white", edgecolor=RED, hatch="////", linewidth=0.8)
    left.set_ylabel("score", fontsize=SMALL)
    left.tick_params(labelsize=SMALL)
    left.set_xticks([])
    left.set_xlim(-0.6, len(order) - 0.4)
    left.spines[["top", "right"]].set_visible(False)
    columns = 4 if len(order) <= 16 else 8
    mosaic, side = _mosaic(weight[order], columns)
    right.imshow(mosaic, cmap="Greys", interpolation="nearest")
    small = {"ms": 9, "mew": 2} if columns == 4 else {"ms": 4.5, "mew": 1.2}
    for place in np.flatnonzero(gone[order]):
        row, column = divmod(int(place), columns)
        at = (column + 0.5) * side - 1, (row + 0.5) * side - 1
        right.plot(*at, marker="x", color=RED, **small)
    right.axis("off")


def _mosaic(weight: np.ndarray, columns: int) -> tuple[np.ndarray, int]:
    """All filters in one picture, and the pixels from one to the next; scaled each by itself."""
    count, inputs, height, width = weight.shape
    rows = -(-count // columns)
    colour = inputs == 3
    pictures = weight.transpose(0, 2, 3, 1) if colour else np.abs(weight).mean(1)[..., None]
    low, high = pictures.min((1, 2, 3), keepdims=True), pictures.max((1, 2, 3), keepdims=True)
    pictures = (pictures - low) / np.maximum(high - low, 1e-12)
    if colour is False:
        pictures = np.repeat(0.85 * (1 - pictures), 3, axis=3)  # dark: large weights
    side = height + 1
    canvas = np.ones((rows * side, columns * (width + 1), 3))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        top, left = row * side, column * (width + 1)
        canvas[top : top + height, left : left + width] = picture
    return canvas, side
