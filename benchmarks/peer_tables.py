"""The tables beside Torch-Pruning and of the frontier; tables.py writes them."""

from __future__ import annotations

from statistics import mean
from typing import Any

from criteria_tables import spread
from loop_tables import points

SIZES = ("macs", "parameters")
SIDES = {"ours": "ours", "theirs": "Torch-Pruning"}


def pruners_table(run: dict[str, Any]) -> str:
    """A row a pruner, a column a target, the most accurate at the largest target first."""
    targets = sorted({row["fewer"] for row in run["rows"]})
    by_pruner: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in run["rows"]:
        by_pruner.setdefault((row["side"], row["pruner"]), {})[row["fewer"]] = row
    order = sorted(by_pruner, key=lambda key: -mean(by_pruner[key][targets[-1]]["test_accuracy"]))
    heads = " | ".join(f"{target}× fewer MACs" for target in targets)
    lines = [
        f"| side | pruner | {heads} | MACs left, at each | parameters left, at each |",
        "|---|---|" + "---|" * (len(targets) + 2),
    ]
    for side, pruner in order:
        rows = [by_pruner[side, pruner][target] for target in targets]
        cells = " | ".join(spread(row["test_accuracy"]) for row in rows)
        left = (
            ", ".join(f"{mean(row[key]):.1%}" for row in rows) for key in ("macs", "parameters")
        )
        lines.append(f"| {SIDES[side]} | {pruner} | {cells} | {' | '.join(left)} |")
    full = spread(run["full"]["test"])
    return "\n".join([*lines, "", f"Test accuracy; the full networks reach {full}."])


def recipe_words(recipe: dict[str, Any]) -> str:
    """A recipe in words."""
    cuts = {1: "one cut", 3: "three cuts"}[recipe["cuts"]]
    extra = ", distillation" if recipe["distill"] else ""
    penalty = "group penalty first, then " if recipe["penalty"] else ""
    return f"{penalty}{recipe['pruner']}, {cuts}, rate {recipe['rate']}{extra}"


def recipes_table(run: dict[str, Any]) -> str:
    """What each side tried, then what its best recipe reaches."""
    lines = ["| side | tried on seed 0 at 4× fewer MACs | validation |", "|---|---|---|"]
    for side, found in run["sides"].items():
        lines += [
            f"| {SIDES[side]} | {recipe_words(trial)} | {trial['val_accuracy']:.2%} |"
            for trial in found["trials"]
        ]
    targets = list(next(iter(run["sides"].values()))["results"])
    heads = " | ".join(f"{target}× fewer MACs" for target in targets)
    lines += [
        "",
        f"| side | best recipe | {heads} | MACs left, at each |",
        "|---|---|" + "---|" * (len(targets) + 1),
    ]
    for side, found in run["sides"].items():
        results = [found["results"][target] for target in targets]
        cells = " | ".join(spread(result["test_accuracy"]) for result in results)
        left = ", ".join(f"{mean(result['macs']):.1%}" for result in results)
        lines.append(f"| {SIDES[side]} | {recipe_words(found['best'])} | {cells} | {left} |")
    return "\n".join([*lines, "", "The lower table: test accuracy."])


def frontier_table(run: dict[str, Any]) -> str:
    """A row a size."""
    lines = [
        "| parameters left | MACs left | batches | test accuracy | change, points |"
        " images per second |",
        "|---|---|---|---|---|---|",
    ]
    full = run["rows"][0]["test_accuracy"]
    for row in run["rows"]:
        change = points([a - b for a, b in zip(row["test_accuracy"], full, strict=True)])
        speed = row["speed"] or {"middle": 1, "range": [1, 1]}
        low, high = speed["range"]
        size = f"{mean(row['parameters']):.1%} | {mean(row['macs']):.1%}"
        speed_words = f"×{speed['middle']:.1f} ({low:.1f}–{high:.1f})"
        lines.append(
            f"| {size} | {row['batches'] or '–'} | {spread(row['test_accuracy'])} "
            f"| {change if row['speed'] else '–'} | {speed_words} |"
        )
    return "\n".join(lines)


def frontier_sentence(run: dict[str, Any]) -> str:
    """The smallest network on generated vehicles that loses nothing beyond the seeds' spread."""
    full, *rows = run["rows"]
    lowest = min(full["test_accuracy"])
    kept = [row for row in rows if mean(row["test_accuracy"]) >= lowest]
    row = min(kept, key=lambda row: (mean(row["parameters"]), row["batches"]))
    left, speed = mean(row["parameters"]), row["speed"]["middle"]
    low, high = row["speed"]["range"]
    return (
        f"**Smaller still.** One cut and {row['batches']:,} batches make networks with {left:.1%} "
        f"of the parameters that reach {spread(row['test_accuracy'])} on the test images, at "
        f"×{speed:.1f} ({low:.1f}–{high:.1f}) images per second. The full networks they come from "
        f"reach {spread(full['test_accuracy'])}, and more if trained on "
        "([the frontier](docs/results.md#the-frontier))."
    )


def recipes_sentence(run: dict[str, Any]) -> str:
    """The best recipe of each side at each target."""
    ours, theirs = (run["sides"][side]["results"] for side in SIDES)
    pairs = [
        f"{mean(ours[target]['test_accuracy']):.1%} and "
        f"{mean(theirs[target]['test_accuracy']):.1%} at {target}× fewer MACs"
        for target in ours
    ]
    return (
        "**Beside Torch-Pruning**, on CIFAR-10, with a ResNet-18 of a quarter of the width, the "
        "same tuning budget and the mean of three seeds, ours and theirs reach "
        f"{', '.join(pairs[:-1])}, and {pairs[-1]} ([the table, and where it is "
        "uneven](docs/results.md#accuracy-beside-torch-pruning))."
    )
