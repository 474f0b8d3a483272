"""The figures of notebook 01: a loss surface, layers with their weights, what a network answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from course_lib.plots.style import BLACK, BLUE, NORMAL, ORANGE, RED, SKY, SMALL
from course_lib.pruning import find_groups, prune

GREY = "#8c8c8c"
LABEL_AT = 0.25  # of an edge: there the numbers of three edges to each of three units don't meet


def draw_surface(
    axes: Axes, slopes: Tensor, intercepts: Tensor, losses: Tensor, labels: bool = True
) -> None:
    """Contour lines of the loss over slope and intercept; all of shape [rows, columns].

    labels: write the loss on some of the lines.
    """
    low, high = float(losses.min()), float(losses.max())
    levels = low + (high - low) * torch.linspace(0.05, 1, 12) ** 2.5
    lines = axes.contour(slopes, intercepts, losses, levels=levels, colors=[GREY], linewidths=0.8)
    if labels:
        axes.clabel(lines, levels=levels[2::2], fmt="%.1f", fontsize=SMALL, colors=[BLACK])
    axes.set_xlabel("slope m", fontsize=NORMAL)
    axes.set_ylabel("intercept b", fontsize=NORMAL)
    axes.set_xlim(float(slopes.min()), float(slopes.max()))
    axes.set_ylim(float(intercepts.min()), float(intercepts.max()))


def draw_path(axes: Axes, path: Tensor) -> None:
    """The descent's steps on a surface, [steps, 2]: a square at the start, a star at the end."""
    axes.plot(*path.T, color=RED, marker="o", ms=3, lw=1.2)
    axes.plot(*path[0], color=BLACK, marker="s", ms=7, ls="none")
    axes.plot(*path[-1], color=ORANGE, marker="*", ms=14, mec=BLACK, ls="none")


def draw_layers(
    axes: Axes,
    weights: Sequence[Tensor],
    names: Sequence[Sequence[str]],
    removed: Sequence[str] = (),
) -> None:
    """Units in columns and each weight as an edge with its number, read off the tensors.

    weights: [outputs, inputs] of each layer. names: the units of each column, such as "y2": the
    letter tells the column, the number the height. removed: units drawn as a dotted outline.
    Wide edges: large weights. Dashed edges: negative ones.
    """
    places = _places(names, removed)
    for column, weight in enumerate(weights):
        for j, end in enumerate(names[column + 1]):
            for i, start in enumerate(names[column]):
                _edge(axes, places[start], places[end], float(weight[j, i]))
    for name, (x, y) in places.items():
        gone = name in removed
        axes.plot(
            x,
            y,
            marker="o",
            ms=21,
            mfc="white" if gone else "#dcecf7",
            mec=GREY if gone else BLACK,
            ls="none",
            zorder=3,
        )
        words = f"${name[0]}_{name[1:]}$"
        if gone:
            axes.plot(x, y, marker="x", ms=17, color=GREY, zorder=4)
            words, y = f"{words} removed", y - 0.24
        axes.annotate(words, (x, y), ha="center", va="center", zorder=4)
    highest = max(y for _, y in places.values())
    axes.set_ylim(-highest - 0.2, highest + 0.2)
    axes.set_xlim(-0.25, len(names) - 0.75)
    axes.set_axis_off()


def _places(
    names: Sequence[Sequence[str]], removed: Sequence[str]
) -> Mapping[str, tuple[float, float]]:
    """Where each unit stands; a column keeps its height when one of its units is gone."""
    places = {}
    for x, column in enumerate(names):
        whole = sorted({*column, *(name for name in removed if name[0] == column[0][0])})
        for place, name in enumerate(whole):
            places[name] = (float(x), (len(whole) - 1) / 2 - place)
    return places


def _edge(axes: Axes, start: tuple[float, float], end: tuple[float, float], weight: float) -> None:
    (x, y), (to_x, to_y) = start, end
    style = "-" if weight >= 0 else (0, (4, 2))
    colour = BLUE if weight >= 0 else RED
    axes.plot([x, to_x], [y, to_y], color=colour, ls=style, lw=0.6 + 1.6 * abs(weight), zorder=1)
    axes.annotate(
        f"{weight:.2f}".replace("-", "−"),
        (x + LABEL_AT * (to_x - x), y + LABEL_AT * (to_y - y)),
        ha="center",
        va="center",
        fontsize=SMALL,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        zorder=2,
    )


def without_neurons(network: nn.Module, gone: Tensor) -> nn.Module:
    """Linear, ReLU, Linear without the hidden neurons of the indices `gone`; nothing is trained."""
    first = network.get_submodule("0")
    stay = torch.ones(int(first.out_features), dtype=torch.bool)  # type: ignore[arg-type]
    stay[gone] = False
    groups = find_groups(network, torch.zeros(1, int(first.in_features)))  # type: ignore[arg-type]
    return prune(network, groups, {"0": stay.nonzero().flatten()})


@torch.no_grad()
def draw_regions(axes: Axes, network: nn.Module, points: Tensor, labels: Tensor) -> None:
    """Where a network of one hidden layer says 1, the points, and the line of each hidden neuron.

    network: Linear, ReLU, Linear, from two numbers to one; labels: 1 (dots) or 0 (crosses).
    """
    reach = float(points.abs().max()) * 1.1
    side = torch.linspace(-reach, reach, 121)
    across, up = torch.meshgrid(side, side, indexing="xy")
    grid = torch.stack([across, up], dim=-1)
    answer = network(grid).squeeze(-1)
    axes.contourf(across, up, answer > 0, levels=[0.5, 1.5], colors=[SKY], alpha=0.5)
    for neuron in network.get_submodule("0")(grid).unbind(-1):
        axes.contour(across, up, neuron, levels=[0], colors=[GREY], linestyles="--", linewidths=1)
    for label, marker, colour in ((1, "o", BLUE), (0, "x", BLACK)):
        axes.plot(*points[labels == label].T, marker, color=colour, ms=2.5, mew=0.6)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
