"""The tables of what pruning buys in time, from data/recorded_runs/impact.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]


def speedups(run: Record) -> str:
    """The wide network, full and pruned: a row for each number of images at a time."""
    limit = run["macs"]["full"] / run["macs"]["pruned"]
    rows = [
        "| images at a time | full, images/s | pruned, images/s | ratio (range) |"
        f" share of the {limit:.2f}× fewer MACs |",
        "|---|---|---|---|---|",
    ]
    for size, row in run["speedups"].items():
        rows.append(
            f"| {size} | {row['full']:,.0f} | {row['pruned']:,.0f} "
            f"| ×{row['middle']:.2f} ({row['low']:.2f}–{row['high']:.2f}) "
            f"| {row['middle'] / limit:.0%} |"
        )
    return "\n".join(rows)


def layers(run: Record) -> str:
    """How much less time each layer takes by itself, in a sentence."""
    full, pruned = run["layers"]["full"], run["layers"]["pruned"]
    gains = {name: full[name] / pruned[name] for name in full}
    least, most = min(gains, key=gains.__getitem__), max(gains, key=gains.__getitem__)
    return (
        f"Layer by layer, 32 images at a time, the time falls by a factor of {gains[least]:.1f} "
        f"(`{least}`) to {gains[most]:.1f} (`{most}`)."
    )


def staircase(run: Record) -> str:
    """What one convolution takes on either side of its steps, in a sentence."""
    took = run["staircase"]
    pairs = (("48", "49"), ("63", "64"), ("64", "65"))
    words = "; ".join(f"{a}: {took[a]:.0f} µs, {b}: {took[b]:.0f} µs" for a, b in pairs)
    return f"One 3×3 convolution on 8 images of 12 by 12 positions, by its width: {words}."


def choices(run: Record) -> str:
    """Every way to a cheaper network, the fastest first."""
    rows = ["| network | test accuracy | ms an image, 64 at a time |", "|---|---|---|"]
    for name, row in sorted(run["choices"].items(), key=lambda item: item[1]["ms"]):
        rows.append(f"| {name} | {row['accuracy']:.2%} | {row['ms']:.3f} |")
    return "\n".join(rows)


def written(run: Record, source_line: Callable[[Record, str], str]) -> str:
    """All of it, as Markdown."""
    parts = (speedups(run), f"{layers(run)} {staircase(run)}", choices(run))
    return "\n\n".join([*parts, source_line(run, "impact")])
