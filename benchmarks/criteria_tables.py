"""The tables of criteria: what they cost, how they compare; tables.py writes them."""

from __future__ import annotations

from statistics import mean
from typing import Any


def criteria_cost_table(run: dict[str, Any]) -> str:
    """What scoring costs: a row a criterion."""
    rows = ["| criterion | seconds | forward passes |", "|---|---|---|"]
    for row in run["criteria"]:
        rows.append(f"| `{row['name']}` | {row['seconds']:.4f} | {row['forward_passes']:.2f} |")
    return "\n".join(
        [
            *rows,
            "",
            f"{run['network']}, {run['indices']} indices, {run['images']} images of "
            f"{run['image_size']} pixels; one forward pass over them takes "
            f"{run['forward_seconds']:.3f} seconds.",
        ]
    )


def obd_table(run: dict[str, Any]) -> str:
    """How far OBD's estimates lie from the exact saliency."""
    rows = [
        "| estimate | probes | seconds | rank correlation | relative error |",
        "|---|---|---|---|---|",
    ]
    for row in run["obd"]:
        rows.append(
            f"| {row['estimate']} | {row['probes'] or ''} | {row['seconds']:.1f} "
            f"| {row['rank_correlation']:.3f} | {row['relative_error']:.2f} |"
        )
    return "\n".join(rows)


def critical_table(run: dict[str, Any]) -> str:
    """Counting what is lost without each filter: ours against a pass per filter."""
    rows = [
        "| one pass per filter, s | ours, s | ratio | multiplications, ratio |",
        "|---|---|---|---|",
        f"| {run['naive_seconds']:,.0f} | {run['ours_seconds']:,.0f} | {run['ratio']:.1f} "
        f"| {run['mac_ideal']:.1f} |",
    ]
    passes = sum(batch["naive_passes"] for batch in run["batches"])
    return "\n".join(
        [
            *rows,
            "",
            f"{run['images']} images, {run['indices']:,} filters. {passes:,} passes of the naive"
            f" way were timed, {run['counts_compared']:,} counts of right answers compared;"
            f" {run['counts_different']} differ.",
        ]
    )


SELECTIONS = {
    "layer": "within each layer",
    "network": "across the network, scores relative to their layer's mean",
    "raw": "across the network, raw scores",
}


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{mean(values):.1%} ({min(values):.1%}–{max(values):.1%})"


def criteria_block(run: dict[str, Any], schedule: str) -> str:
    """Criteria compared: a table for each way of selecting, the best mean first."""
    blocks = []
    for selection, words in SELECTIONS.items():
        wanted = (schedule, selection)
        found = [r for r in run["rows"] if (r["schedule"], r["selection"]) == wanted]
        if not found:
            continue
        rows = [
            f"{words.capitalize()}:",
            "",
            "| criterion | right after surgery | fine-tuned: mean (range) | parameters left |"
            " MACs left | left of the narrowest layer | scoring once, CPU s |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in sorted(found, key=lambda r: -mean(r["accuracy"])):
            rows.append(
                f"| {row['criterion']} | {mean(row['accuracy_pruned']):.1%} "
                f"| {spread(row['accuracy'])} | {mean(row['parameters']):.1%} "
                f"| {mean(row['macs']):.1%} | {row['narrowest']:.0%} "
                f"| {row['scoring_seconds']:.3f} |"
            )
        blocks.append("\n".join(rows))
    full = f"The full networks reach {spread(run['full']['accuracy'])}."
    kept = run.get("kept", {"rows": 0})
    if kept["rows"]:
        full += (
            f" The first {kept['rows']} of all {len(run['rows'])} rows had been measured by "
            f"{kept['date']}; the networks, made anew, validate exactly as then."
        )
    return "\n\n".join([*blocks, full])
