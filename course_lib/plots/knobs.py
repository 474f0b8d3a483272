"""What the knobs of the loop do, and how fast a network recovers: the figures of notebook 06."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import PercentFormatter

from course_lib.plots.style import (
    BLACK,
    BLUE,
    DPI,
    NORMAL,
    ORANGE,
    RED,
    SKY,
    SMALL,
    WIDTH,
    blank,
    finish,
)

Record = Mapping[str, Any]


def kept(history: Sequence[Record]) -> Record:
    """The line of the last network that passed, which is the one a run keeps."""
    return [line for line in history if line["passed"]][-1]


def of_knob(runs: Sequence[Record], knob: str) -> dict[str, list[Sequence[Record]]]:
    """The histories of one knob: value → one per seed."""
    found: dict[str, list[Sequence[Record]]] = {}
    for run in runs:
        if run["knob"] == knob:
            found.setdefault(run["value"], []).append(run["history"])
    return found


def compounding_figure(needed: Mapping[float, int], share: float) -> Figure:
    """Parameters left after every round, by the square rule, for several fractions.

    needed: fraction removed per round → rounds after which at most `share` is left; marked.
    """
    figure, axes = blank("round", "parameters left")
    styles = ((SKY, "o", ":"), (BLUE, "s", "-"), (ORANGE, "^", "--"), (RED, "v", "-."))
    for (fraction, rounds), (colour, mark, dashes) in zip(needed.items(), styles, strict=True):
        left = [(1 - fraction) ** (2 * number) for number in range(max(needed.values()) + 1)]
        axes.plot(left, dashes, color=colour, lw=1.8, label=f"{fraction:.0%} a round")
        axes.plot(rounds, left[rounds], mark, color=colour, ms=8, mec=BLACK, mew=0.5)
        axes.text(rounds, left[rounds] - 0.03, str(rounds), ha="center", va="top", fontsize=SMALL)
    axes.axhline(share, color="0.5", lw=0.8, zorder=0)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    rows = ", ".join(f"{fraction:.0%}: {rounds}" for fraction, rounds in needed.items())
    text = (
        f"Line plot of the parameters left, (1 - fraction) to the power of twice the rounds. "
        f"Rounds until at most {share:.0%} are left, marked on each curve: {rows}."
    )
    return finish(
        figure, axes, f"Rounds until at most {share:.0%} of the parameters are left", text
    )


def loop_figure() -> Figure:
    """The pruning loop: six steps in a row, and the three ways on from the check."""
    figure = Figure(figsize=(WIDTH, 2.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.55, 5.55), ylim=(-1.35, 1.0))
    axes.axis("off")
    box: dict[str, Any] = {
        "boxstyle": "round,pad=0.45",
        "facecolor": "white",
        "edgecolor": BLUE,
        "linewidth": 1.4,
    }
    steps = ("train", "score", "select", "remove", "fine-tune", "check")
    for place, name in enumerate(steps):
        axes.text(place, 0, name, ha="center", va="center", fontsize=NORMAL, bbox=box)
        if place:
            _arrow(axes, (place - 0.68, 0), (place - 0.34, 0), BLACK, "-")
    end = {**box, "edgecolor": RED, "linestyle": ":"}
    axes.text(5, -1.1, "undo the cut, stop", ha="center", va="center", fontsize=NORMAL, bbox=end)
    _arrow(axes, (5, -0.25), (5, -0.83), RED, ":")
    _arrow(axes, (5, 0.25), (1, 0.25), BLUE, "-", bend=0.16)
    _arrow(axes, (4.75, -0.25), (4, -0.25), ORANGE, "--", bend=-0.5)
    words: dict[str, Any] = {"fontsize": SMALL, "color": BLACK}
    axes.text(3, 0.72, "within the tolerance: next round", ha="center", va="bottom", **words)
    axes.text(4.1, -0.62, "not yet: fine-tune once more", ha="right", va="center", **words)
    axes.text(5.07, -0.55, "still not", ha="left", va="center", **words)
    figure.set_label(
        "The loop: train, then in every round score, select, remove, fine-tune, check. From the"
        " check there are three ways on: within the tolerance, the next round begins with scoring;"
        " if not yet, the same network is fine-tuned once more; if it still isn't, the cut is"
        " undone and the run stops."
    )
    return figure


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str,
    dashes: str,
    bend: float = 0.0,
) -> None:
    look: dict[str, Any] = {
        "arrowstyle": "-|>",
        "linestyle": dashes,
        "color": color,
        "mutation_scale": 12,
    }
    curve = f"arc3,rad={bend}"
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=curve, linewidth=1.4, **look))


def knobs_figure(runs: Sequence[Record]) -> Figure:
    """Four panels, one a knob: rounds, fine-tuning, scope, tolerance; a small mark is a seed.

    runs: `knob`, `value`, `seed` and `history`, as benchmarks/knobs.py records them.
    """
    figure = Figure(figsize=(8.0, 6.4), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, 2)
    _against(axes[0, 0], of_knob(runs, "rounds"), BLUE, "o", "-", "240 batches in all")
    longer = of_knob(runs, "rounds, three times the batches")
    _against(axes[0, 0], longer, RED, "s", "--", "720 batches in all")
    _number(axes[0, 0], of_knob(runs, "rounds"))
    axes[0, 0].legend(fontsize=SMALL, frameon=False, loc="lower left")
    _label(axes[0, 0], "rounds to the same size", "A  One cut or many", decimals=1)
    _against(axes[0, 1], of_knob(runs, "finetune_batches"), BLUE, "o", "-", "")
    _number(axes[0, 1], of_knob(runs, "finetune_batches"))
    _label(axes[0, 1], "batches of fine-tuning per round", "B  How long each round is fine-tuned")
    _scope(axes[1, 0], of_knob(runs, "scope"))
    _label(axes[1, 0], "round", "C  Ranked within layers or across the network")
    _gates(axes[1, 1], of_knob(runs, "tolerance"))
    _label(axes[1, 1], "tolerance of the gate, points", "D  Where the gate stops the run")
    axes[1, 1].set_ylabel("parameters kept", fontsize=NORMAL)
    return figure


def recovery_figure(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]]) -> Figure:
    """Accuracy after a surgery, relative to the full network's, by batches of fine-tuning.

    curves: name of a set of rounds → for each of its rounds (batches since surgery, difference).
    The line is the median of a set, the bars hold the middle half of it; sets stand side by side.
    """
    figure, axes = blank("batches since the surgery", "points against the full network", (8, 3.8))
    styles = ((BLUE, "o", "-"), (ORANGE, "s", "--"), (RED, "^", ":"))
    pairs = zip(curves.items(), styles, strict=False)
    for number, ((name, rounds), (color, marker, dashes)) in enumerate(pairs):
        steps = [batch + 0.6 * (number - 1) for batch, _ in rounds[0]]
        columns = [sorted(100 * curve[i][1] for curve in rounds) for i in range(len(steps))]
        quarter = len(rounds) // 4
        middle = [median(column) for column in columns]
        ends = [
            [m - column[quarter] for m, column in zip(middle, columns, strict=True)],
            [column[-1 - quarter] - m for m, column in zip(middle, columns, strict=True)],
        ]
        axes.errorbar(steps, middle, ends, fmt="none", ecolor=color, elinewidth=1.2, capsize=3)
        axes.plot(steps, middle, color=color, marker=marker, ls=dashes, lw=1.8, label=name)
    axes.axhline(0, color="0.4", lw=0.8)
    axes.axhline(-2, color="0.4", lw=0.8, ls=(0, (1, 2)))
    axes.annotate("tolerance", (axes.get_xlim()[1], -2), ha="right", va="bottom", fontsize=SMALL)
    return finish(figure, axes, "After a cut: the median round and the middle half")


def _against(
    axes: Axes,
    values: Mapping[str, list[Sequence[Record]]],
    color: str,
    marker: str,
    dashes: str,
    label: str,
) -> None:
    """Final accuracy against a number on a logarithmic axis: seeds as marks, the mean as a line."""
    points = [
        (float(value), [history[-1]["val_accuracy"] for history in seeds])
        for value, seeds in values.items()
    ]
    for x, ys in points:
        axes.plot([x] * len(ys), ys, ls="none", marker=marker, ms=4, color=color, alpha=0.6)
    means = [mean(ys) for _, ys in points]
    axes.plot([x for x, _ in points], means, color=color, ls=dashes, marker=marker, label=label)


def _number(axes: Axes, values: Mapping[str, Any]) -> None:
    """A logarithmic axis with the settings themselves as its numbers."""
    axes.set_xscale("log", base=2)
    axes.set_xticks([float(value) for value in values], list(values))
    axes.minorticks_off()


def _scope(axes: Axes, values: Mapping[str, list[Sequence[Record]]]) -> None:
    """Accuracy after fine-tuning, round by round: seeds as marks, the mean as a line."""
    styles = ((BLUE, "o", "-", "within each layer"), (RED, "s", "--", "across the network"))
    for seeds, (color, marker, dashes, name) in zip(values.values(), styles, strict=False):
        rounds = range(len(seeds[0]))
        columns = [[history[r]["val_accuracy"] for history in seeds] for r in rounds]
        for r, column in zip(rounds, columns, strict=True):
            axes.plot([r] * len(column), column, marker, ls="none", ms=3, color=color, alpha=0.6)
        axes.plot(rounds, list(map(mean, columns)), color=color, ls=dashes, label=name)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left")


def _gates(axes: Axes, values: Mapping[str, list[Sequence[Record]]]) -> None:
    """Parameters left in the network that each run keeps, and the mean accuracy above them."""
    for place, seeds in enumerate(values.values()):
        shares = [kept(history)["parameters"] / history[0]["parameters"] for history in seeds]
        axes.plot([place] * len(shares), shares, "o", ls="none", ms=6, color=BLUE, alpha=0.7)
        reached = mean(kept(history)["val_accuracy"] for history in seeds)
        axes.annotate(
            f"{reached:.1%}\nright",
            (place, max(shares)),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
        )
    names = [value if value == "no gate" else f"{100 * float(value):g}" for value in values]
    axes.set_xticks(range(len(values)), names)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_ylim(0, 1)


def _label(axes: Axes, xlabel: str, title: str, decimals: int = 0) -> None:
    axes.set_xlabel(xlabel, fontsize=NORMAL)
    axes.set_ylabel("validation accuracy", fontsize=NORMAL)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=decimals))
    axes.tick_params(labelsize=SMALL)
    axes.set_title(title, fontsize=NORMAL, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
