"""Figures of the recorded comparison between pruned networks and others of the same size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from course_lib.plots.style import BLACK, BLUE, NORMAL, ORANGE, RED, SKY, SMALL

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
    "ticket": ("ticket: winners' first weights", ORANGE, "P"),
    "rewound": ("ticket: winners' early weights", ORANGE, "X"),
}


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
