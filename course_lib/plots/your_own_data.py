"""The figure of notebook 09: how trainings that went wrong look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from course_lib.plots.style import BLACK, BLUE, DPI, NORMAL, ORANGE, SMALL, WIDTH

# Line, marker and dashes of each part: told apart without their colours too.
PARTS = {
    "train": (BLUE, "o", "-"),
    "val": (ORANGE, "s", "--"),
    "fresh": (BLACK, "^", ":"),
}


def trainings(
    curves: Mapping[str, Mapping[str, Sequence[float]]], chance: float, columns: int = 3
) -> Figure:
    """Accuracy over batches of several trainings, one small plot each: train, val, fresh images.

    curves: title → {"batches": …, "train": …, "val": …, "fresh": …}; accuracies in [0, 1], of the
    length of "batches"; what isn't a number is left out. chance: drawn as a thin line.
    """
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(WIDTH, 2.2 * rows), dpi=DPI, layout="constrained")
    cells = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in cells[len(curves) :]:
        axes.axis("off")
    for axes, (title, curve) in zip(cells, curves.items(), strict=False):
        for part, (colour, marker, dashes) in PARTS.items():
            axes.plot(
                curve["batches"], curve[part], dashes, color=colour, marker=marker, ms=4, label=part
            )
        axes.axhline(chance, color="0.6", lw=0.8)
        axes.set_title(title, fontsize=NORMAL, loc="left")
        axes.set_ylim(0, 1.03)
        axes.tick_params(labelsize=SMALL)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = cells[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False
    )
    figure.supxlabel("batches", fontsize=NORMAL)
    figure.supylabel("accuracy", fontsize=NORMAL)
    return figure
