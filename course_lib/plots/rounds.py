"""The figures of a run, the article's 6 (accuracy), 7 (size) and 8 (throughput).

Each function takes plain data and returns a Matplotlib `Figure` with its alt text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from course_lib.plots.style import BLACK, BLUE, ORANGE, RED, SKY, SMALL, blank, finish

Record = Mapping[str, Any]

MOST_LABELS = 16  # more labels than this on one axis would touch each other
WIDEST_NUMBER = 0.03  # of the axis: what a number of two digits takes, with some air


def accuracy_figure(curve: Sequence[Record], history: Sequence[Record]) -> Figure:
    """The article's figure 6: validation accuracy over batches, pruning moments marked.

    curve: `batches` (so far), `accuracy` (0 to 1), in order.
    history: `round`, `batches` (so far), `val_accuracy`, `val_accuracy_pruned`, `passed`; round 0
    is the full network. A round's surgery happens at the batch at which the round before ended.
    """
    figure, axes = blank("batches of training so far", "validation accuracy")
    # Whole percents only: a tick at 97.5 % would be labelled 98 %.
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    # As by default, but in whole batches, for a run of a few.
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))
    if curve:
        axes.plot(
            *_columns(curve, "batches", "accuracy"), color=BLUE, lw=1.4, label="during training"
        )
    if not history:
        return finish(figure, axes, "Validation accuracy: no round has ended yet")
    full, final, rounds = history[0], _final(history), history[1:]
    axes.axhline(full["val_accuracy"], color=BLACK, ls="--", lw=1, label="full network")
    moments = [before["batches"] for before in history[:-1]]
    for moment in moments:
        axes.axvline(moment, color="0.75", ls=":", lw=0.9, zorder=0)
    if rounds:
        pruned = [record["val_accuracy_pruned"] for record in rounds]
        _marks(axes, moments, pruned, marker="v", color=RED, label="right after pruning")
        _marks(
            axes,
            *_columns(rounds, "batches", "val_accuracy"),
            marker="o",
            color=ORANGE,
            label="after fine-tuning",
        )
        _number_the_rounds(axes, moments)
    failed = _failed(history)
    _cross(axes, *_columns(failed, "batches", "val_accuracy"))
    floor = _accuracy_floor(curve, history)
    axes.set_ylim(floor, 1 + 0.02 * (1 - floor))  # room for the upper half of a mark at 100 %
    return finish(figure, axes, *_accuracy_words(full, final, rounds, failed))


def size_figure(history: Sequence[Record]) -> Figure:
    """The article's figure 7: parameters, bytes and filters of every round's network.

    history: `round`, `parameters`, `bytes`, `filters`, `passed`; drawn relative to round 0.
    """
    figure, axes = blank("pruning round (0 is the full network)", "relative to the full network")
    if not history:
        return finish(figure, axes, "Size: no round has ended yet")
    full, final, failed = history[0], _final(history), _failed(history)
    rounds = [record["round"] for record in history]
    shares = _relative(history, "parameters")
    bars = axes.bar(rounds, shares, color=SKY, edgecolor=BLUE, width=0.8, label="parameters")
    _marks(axes, rounds, _relative(history, "bytes"), marker="D", color=BLACK, label="bytes")
    filters = _relative(history, "filters")
    axes.plot(rounds, filters, color=RED, ls="--", marker="o", ms=4, lw=1.2, label="filters")
    for number, share in _thinned(list(zip(rounds, shares, strict=True))):
        # At the foot of the bar, where no mark can cover it, or above a bar too low for that.
        height = 0.012 if share > 0.1 else share + 0.025
        axes.text(number, height, f"{share:.0%}", ha="center", fontsize=SMALL)
    for record, bar in zip(history, bars, strict=True):
        if not record["passed"]:
            bar.set(facecolor="white", linestyle="--")
    _cross(
        axes, [r["round"] for r in failed], [r["parameters"] / full["parameters"] for r in failed]
    )
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_ylim(0, 1.1 * max(*shares, *filters, 1.0))
    _tick_rounds(axes, rounds)
    return finish(figure, axes, *_size_words(full, final, failed))


def throughput_figure(history: Sequence[Record]) -> Figure:
    """The article's figure 8: images per second of every round's network, against its MACs.

    history: `round`, `images_per_second` (None where it wasn't measured), `macs`, `passed`; drawn
    relative to round 0. The thin line is the speed-up if time followed the MACs exactly.
    """
    figure, axes = blank(
        "pruning round (0 is the full network)", "images per second, relative to full network"
    )
    if not history:
        return finish(figure, axes, "Images per second: no round has ended yet")
    full, final, failed = history[0], _final(history), _failed(history)
    rounds = [record["round"] for record in history]
    limits = [full["macs"] / record["macs"] for record in history]
    axes.plot(rounds, limits, color=BLACK, ls="--", lw=0.9, label="if time followed the MACs")
    timed = [r for r in history if full["images_per_second"] and r["images_per_second"]]
    ratios = [record["images_per_second"] / full["images_per_second"] for record in timed]
    at = [record["round"] for record in timed]
    if timed:
        axes.plot(
            at, ratios, color=BLUE, marker="o", ms=5, lw=1.6, label="measured images per second"
        )
    top = 1.1 * max(*limits, *ratios, 1.0)
    for place, ratio in _thinned(list(zip(at, ratios, strict=True))):
        if ratio < 0.08 * top:
            continue  # there is no room for a number between such a low point and the axis
        # Below the point: the line of the MACs mostly runs above it. Where not, the halo helps.
        axes.annotate(
            f"{ratio:.1f}",
            (place, ratio),
            xytext=(0, -14),
            textcoords="offset points",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            ha="center",
            fontsize=SMALL,
        )
    crossed = [(p, v) for p, v, r in zip(at, ratios, timed, strict=True) if not r["passed"]]
    _cross(axes, [place for place, _ in crossed], [ratio for _, ratio in crossed])
    axes.set_ylim(0, top)
    _tick_rounds(axes, rounds)
    return finish(figure, axes, *_throughput_words(full, final, failed))


def _accuracy_words(
    full: Record, final: Record, rounds: Sequence[Record], failed: Sequence[Record]
) -> tuple[str, str]:
    """Title and alt text of the accuracy figure."""
    level = f"{full['val_accuracy']:.1%}"
    if not rounds:
        title = f"Full network: {level} of the validation images after {full['batches']:,} batches"
        return title, f"Line plot of validation accuracy over batches. {title}."
    points = 100 * (final["val_accuracy"] - full["val_accuracy"])
    title = (
        f"After {_rounds(final)}: {final['val_accuracy']:.1%} validation accuracy,"
        f" {abs(points):.1f} points {'under' if points < 0 else 'over'} the full network's {level}"
    )
    lowest = min(rounds, key=lambda record: record["val_accuracy_pruned"])
    text = (
        f"Line plot of validation accuracy over {rounds[-1]['batches']:,} batches. The full network"
        f" reaches {level} after {full['batches']:,} batches; after {_rounds(final)} of pruning and"
        f" fine-tuning it is {final['val_accuracy']:.1%}. Right after pruning, accuracy was lowest"
        f" in round {lowest['round']}, at {lowest['val_accuracy_pruned']:.1%}."
        f"{_failed_words(failed)}"
    )
    return title, text


def _size_words(full: Record, final: Record, failed: Sequence[Record]) -> tuple[str, str]:
    """Title and alt text of the size figure."""
    sizes = f"{full['parameters']:,} parameters in {full['bytes'] / 1e6:.1f} MB"
    if final is full:
        title = f"The full network has {sizes}"
        return title, f"Bar chart of network size per round. {title}.{_failed_words(failed)}"
    parameters, size, filters = (
        f"{final[key] / full[key]:.1%}" for key in ("parameters", "bytes", "filters")
    )
    title = f"After {_rounds(final)}, {parameters} of the full network's parameters are left"
    text = (
        f"Bar chart of network size per round. The full network has {sizes}. After"
        f" {_rounds(final)}, {parameters} of the parameters ({final['parameters']:,}), {size} of"
        f" the bytes and {filters} of the filters are left.{_failed_words(failed)}"
    )
    return title, text


def _throughput_words(full: Record, final: Record, failed: Sequence[Record]) -> tuple[str, str]:
    """Title and alt text of the throughput figure."""
    start = "Line plot of images per second per round, relative to the full network."
    limit = f"{full['macs'] / final['macs']:.2f}"
    if not (full["images_per_second"] and final["images_per_second"]):
        title = f"Images per second weren't measured; the MACs allow {limit} times as many"
        return title, f"{start} {title}.{_failed_words(failed)}"
    if final is full:
        title = f"The full network: {full['images_per_second']:,.0f} images per second"
        return title, f"{start} {title}.{_failed_words(failed)}"
    ratio = f"{final['images_per_second'] / full['images_per_second']:.2f}"
    macs = f"{final['macs'] / full['macs']:.1%}"
    title = f"After {_rounds(final)}: {ratio} times the images per second with {macs} of the MACs"
    text = (
        f"{start} The full network classifies {full['images_per_second']:,.0f} images per second;"
        f" after {_rounds(final)} it is {final['images_per_second']:,.0f}, {ratio} times as many."
        f" With {macs} of the MACs it would be {limit} times if time followed the MACs exactly."
        f"{_failed_words(failed)}"
    )
    return title, text


def _rounds(final: Record) -> str:
    return "1 round" if final["round"] == 1 else f"{final['round']} rounds"


def _failed_words(failed: Sequence[Record]) -> str:
    return "".join(f" Round {r['round']} did not pass the gate." for r in failed)


def _final(history: Sequence[Record]) -> Record:
    """The last network that passed, which is the one a run keeps."""
    return next((record for record in reversed(history) if record["passed"]), history[0])


def _failed(history: Sequence[Record]) -> list[Record]:
    return [record for record in history[1:] if not record["passed"]]


def _relative(history: Sequence[Record], key: str) -> list[float]:
    return [record[key] / history[0][key] for record in history]


def _columns(records: Sequence[Record], *keys: str) -> tuple[list[Any], ...]:
    return tuple([record[key] for record in records] for key in keys)


def _thinned(items: list[Any], least: int = 1) -> list[Any]:
    """Every so many of the items, so that labels don't touch; the first and the last stay."""
    step = max(least, math.ceil(len(items) / MOST_LABELS))
    return items[: max(len(items) - step, 0) : step] + items[-1:]


def _accuracy_floor(curve: Sequence[Record], history: Sequence[Record]) -> float:
    """Where the accuracy axis starts: five points' grid below all that happens from pruning on.

    The first batches of base training may lie below it: what the figure is about is the drops.
    """
    start = history[0]["batches"]
    seen = [point["accuracy"] for point in curve if point["batches"] >= start]
    seen += [record["val_accuracy"] for record in history]
    seen += [record["val_accuracy_pruned"] for record in history[1:]]
    return max(0.0, (int(min(seen) * 20) - 1) / 20)


def _marks(axes: Axes, x: Sequence[Any], y: Sequence[Any], **style: Any) -> None:
    axes.plot(x, y, ls="none", ms=5.5, mec=BLACK, mew=0.5, **style)


def _cross(axes: Axes, x: Sequence[Any], y: Sequence[Any]) -> None:
    """Mark rounds that did not pass the gate; without any, the legend has no entry for them."""
    if x:
        axes.plot(x, y, ls="none", marker="X", ms=11, color=RED, mec=BLACK, label="failed the gate")


def _tick_rounds(axes: Axes, rounds: list[int]) -> None:
    axes.set_xticks(_thinned(rounds))
    axes.set_xlim(-0.6, max(rounds[-1], 5) + 0.6)  # one bar alone shouldn't fill the figure


def _number_the_rounds(axes: Axes, moments: Sequence[float]) -> None:
    """Round numbers along the upper edge, at the pruning moments where there is room for them."""
    top = axes.secondary_xaxis("top")
    left, right = axes.get_xlim()
    gaps = [after - before for before, after in pairwise(moments)]
    room = WIDEST_NUMBER * (right - left) / max(min(gaps, default=right), 1)
    numbered = _thinned(list(enumerate(moments, start=1)), math.ceil(room))
    top.set_xticks([moment for _, moment in numbered], [str(number) for number, _ in numbered])
    top.set_xlabel("pruning round", fontsize=SMALL)
    top.tick_params(labelsize=SMALL, length=2)
    top.spines["top"].set_visible(False)
