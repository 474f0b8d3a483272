"""Figures of the comparison between pruned networks and others of the same size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from course_lib.plots.style import BLACK, BLUE, DPI, NORMAL, ORANGE, RED, SKY, SMALL, WIDTH

Row = Mapping[str, Any]

# (kind, arm) → what it is called, colour, mark; in the order of the figures.
ARMS = {
    "longer": ("full network, trained as long", BLACK, "s"),
    "pruned": ("pruned in rounds", BLUE, "o"),
    "pruned, low rate": ("pruned in rounds, low rate", SKY, "o"),
    "one shot": ("pruned at once", SKY, "D"),
    "scratch": ("small, from scratch, same batches", RED, "v"),
    "scratch, equal compute": ("small, from scratch, same compute", RED, "^"),
    "new weights": ("winners' places, new weights", RED, "v"),
    "ticket": ("ticket: winners' initial weights", ORANGE, "P"),
    "rewound": ("ticket: winners' early weights", ORANGE, "X"),
}


def plan_figure(phases: Sequence[tuple[int, int]]) -> Figure:
    """What pruning in rounds pays, and what its small network costs: batches by MACs a batch.

    phases: (batches, MACs per image) of the full network, then of every round's. Areas are compute.
    """
    lengths, macs = zip(*phases, strict=True)
    shares = [each / macs[0] for each in macs]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    total = sum(lengths)
    figure = Figure(figsize=(WIDTH, 3.6), dpi=DPI, layout="constrained")
    pruning, small = figure.subplots(1, 2, sharey=True, sharex=True)
    pruning.bar(starts, shares, lengths, align="edge", color=BLUE, edgecolor="white")
    small.bar(0, shares[-1], total, align="edge", color=RED, edgecolor="white", hatch="//")
    pruning.set_title("pruned in rounds", fontsize=NORMAL, loc="left")
    small.set_title("its small network, from scratch, same batches", fontsize=NORMAL, loc="left")
    pruning.set_ylabel("MACs of a batch (1: the full network's)", fontsize=SMALL)
    for axes in (pruning, small):
        axes.set_xlabel("batch", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    work = sum(length * share for length, share in zip(lengths, shares, strict=True))
    figure.set_label(
        f"Two bar charts over {total} batches; the height is what a batch costs, so areas are "
        f"compute. Pruning: {lengths[0]} batches of the full network, then {len(lengths) - 1} "
        f"rounds of {lengths[-1]} batches, each cheaper, the last at {shares[-1]:.0%}. The small "
        f"network from scratch: all {total} batches at {shares[-1]:.0%}, "
        f"{total * shares[-1] / work:.0%} of that area."
    )
    return figure


def of_arm(rows: Sequence[Row], arm: str) -> list[Row]:
    """The rows of one way to train, one a seed, in the order of the seeds."""
    return sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"])


def arms_of(rows: Sequence[Row]) -> list[str]:
    """The ways to train that these rows have, in the order of the figures."""
    return [arm for arm in ARMS if of_arm(rows, arm)]


def dots(axes: Axes, rows: Sequence[Row]) -> None:
    """A line for each way to train: a mark for each seed, a bar at their mean."""
    names = arms_of(rows)
    for height, arm in enumerate(reversed(names)):
        _, colour, mark = ARMS[arm]
        values = [row["test_accuracy"] for row in of_arm(rows, arm)]
        axes.plot(values, [height] * len(values), mark, color=colour, ms=7, mec=BLACK, mew=0.5)
        axes.plot([mean(values)] * 2, [height - 0.35, height + 0.35], color=BLACK, lw=1.5)
        axes.axhline(height, color="0.9", lw=0.8, zorder=0)
    labels = [ARMS[arm][0] for arm in reversed(names)]
    axes.set_yticks(range(len(names)), labels, fontsize=SMALL)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))  # whole percents
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel("test accuracy", fontsize=NORMAL)


def against_compute(axes: Axes, rows: Sequence[Row], unit: float, finding: bool) -> None:
    """Accuracy of every seed against compute, in units of the pruned network's own.

    finding: whether what it cost to find a network counts as well as training it. Marks of one cost
    are drawn side by side.
    """
    costs = {
        arm: [
            (row["compute"] + finding * row["compute_before"]) / unit for row in of_arm(rows, arm)
        ]
        for arm in arms_of(rows)
    }
    for arm, spent in costs.items():
        label, colour, mark = ARMS[arm]
        accuracies = [row["test_accuracy"] for row in of_arm(rows, arm)]
        near = [other for other in costs if abs(costs[other][0] / spent[0] - 1) < 0.1]
        aside = 1.08 ** (near.index(arm) - (len(near) - 1) / 2)
        at = [cost * aside for cost in spent]
        axes.plot(at, accuracies, mark, color=colour, ms=7, mec=BLACK, mew=0.5, label=label)
    axes.set_xscale("log")
    axes.set_xlim(0.15, 5)
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"], fontsize=SMALL)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0.55, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.tick_params(labelsize=SMALL)
    axes.set_xlabel("compute (1 is the pruned network's)", fontsize=SMALL)
    axes.set_ylabel("test accuracy", fontsize=SMALL)
    axes.grid(color="0.92", lw=0.7)
