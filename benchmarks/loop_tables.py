"""The tables of machinery.py, training_loop.py, schedules.py and course_clock.py, each from its
record.
"""

from __future__ import annotations

from statistics import mean
from typing import Any

Row = dict[str, Any]


def times(ratio: Row) -> str:
    """A ratio and its range."""
    low, high = ratio["range"]
    return f"×{ratio['median']:.2f} ({low:.2f}–{high:.2f})"


def machinery_table(run: Row) -> str:
    """A row a network: the seconds of our step, and how many times longer each of theirs takes."""
    ways = list(run["networks"][0]["times_ours"])
    rows = [
        f"| network | ours, seconds | {' | '.join(ways)} | parameters left |",
        "|---" * (len(ways) + 3) + "|",
    ]
    for row in run["networks"]:
        cells = " | ".join(times(row["times_ours"][way]) for way in ways)
        left = sorted(set(row["parameters_left"].values()))
        rows.append(
            f"| {row['name']} | {row['seconds']['ours']:.3f} | {cells} "
            f"| {', '.join(f'{count:,}' for count in left)} of {row['parameters']:,} |"
        )
    return "\n".join(rows)


def growth_table(run: Row) -> str:
    """A row a size: both sides' seconds; and the exponents."""
    rows = [
        "| network | convolutions | parameters | ours, seconds | theirs, seconds | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in [*run["depth"], *run["width"]]:
        (way, ratio), seconds = *row["times_ours"].items(), row["seconds"]
        rows.append(
            f"| {row['name']} | {row['convolutions']} | {row['parameters']:,} "
            f"| {seconds['ours']:.3f} | {seconds[way]:.3f} | {times(ratio)} |"
        )
    (ours, theirs), (wide, their_wide) = (
        run["slopes"][kind].values() for kind in ("depth", "width")
    )
    return "\n".join(
        [
            *rows,
            "",
            f"Fitted through these, seconds grow as the number of convolutions to the power of "
            f"{ours:.2f} (theirs {theirs:.2f}), and as the number of parameters to the power of "
            f"{wide:.2f} (theirs {their_wide:.2f}); 1 is linear, and less means that what doesn't "
            f"grow still outweighs what does. Torch-Pruning {run['torch_pruning']}.",
        ]
    )


def way_rows(before: str, ways: Row) -> list[str]:
    """A line a way to train."""
    lines = []
    for name, way in ways.items():
        low, high = way["ours_faster_range"]
        faster = f"×{way['ours_faster']:.2f} ({low:.2f}–{high:.2f})" if name != "ours" else ""
        waiting = f"{way['waiting']:.1%}" if "waiting" in way else ""
        rate = f"{way['images_per_second']:,.0f}"
        lines.append(f"| {before} | {name} | {rate} | {faster} | {waiting} |")
    return lines


def share(width: int) -> str:
    """A stem's width in words."""
    return {64: "full", 16: "a quarter"}.get(width, str(width))


def memory_table(run: Row) -> str:
    """The loop on images in memory: a row a width and a way; and what drawing them takes."""
    rows = [
        "| width | loop | images per second | ours is faster | waiting for data |",
        "|---|---|---|---|---|",
    ]
    for row in run["memory"]:
        rows += way_rows(share(row["width"]), row["ways"])
    drawing = run["drawing"]["images_per_second"]
    return "\n".join(
        [*rows, "", f"{drawing:,.0f} images are drawn per second, once in a set's life."]
    )


def folder_table(run: Row) -> str:
    """One start and one epoch over folders: a row a folder, a width and a way."""
    rows = [
        "| photographs | width | loop | images per second, start included | ours is faster |"
        " waiting for data |",
        "|---|---|---|---|---|---|",
    ]
    for row in run["folders"]:
        rows += way_rows(f"{row['photos']} | {share(row['width'])}", row["ways"])
    firsts = {row["photos"]: row for row in reversed(run["folders"])}
    decoded = "; ".join(
        f"{row['first_start_seconds']:.1f} seconds for {name}" for name, row in firsts.items()
    )
    counts = ", ".join(f"{row['images']:,} of {name}" for name, row in firsts.items())
    return "\n".join(
        [*rows, "", f"Training images: {counts}. The first start, which decodes all: {decoded}."]
    )


def points(changes: list[float]) -> str:
    """Mean and range of changes of accuracy, in points."""
    shown = [100 * change for change in changes]
    return f"{mean(shown):+.1f} ({min(shown):+.1f} to {max(shown):+.1f})"


def schedules_table(run: Row) -> str:
    """A row a set and a schedule: time beside the first schedule's, accuracy beside the full
    network's.
    """
    lines = [
        "| preset, width | schedule | batches | time | lowest after surgery | validation, change |"
        " test, change |",
        "|---|---|---|---|---|---|---|",
    ]

    def of_set(row: Row) -> tuple[str, int]:
        return row["preset"], row["base_width"]

    for preset, width in dict.fromkeys(map(of_set, run["rows"])):
        same = [row for row in run["rows"] if of_set(row) == (preset, width)]
        names = list(dict.fromkeys(row["schedule"] for row in same))
        first = {row["seed"]: row["seconds"] for row in same if row["schedule"] == names[0]}
        for name in names:
            found = [row for row in same if row["schedule"] == name]
            time = mean(row["seconds"] / first[row["seed"]] for row in found)
            changes = [
                points([row[f"{part}_accuracy"] - row[f"{part}_accuracy_full"] for row in found])
                for part in ("val", "test")
            ]
            lowest = mean(row["lowest_after_surgery"] for row in found)
            lines.append(
                f"| `{preset}`, {width} | {name} | {found[0]['batches']:,} | ×{time:.2f} "
                f"| {lowest:.0%} | {changes[0]} | {changes[1]} |"
            )
    left = mean(row["parameters"] for row in run["rows"])
    return "\n".join([*lines, "", f"All leave {left:.1%} of the parameters."])


def one_cut_sentence(run: Row) -> str:
    """What the preset `one-cut` reaches, and in how much of the time of the laptop's rounds."""
    wide = [row for row in run["rows"] if (row["preset"], row["base_width"]) == ("laptop", 64)]

    def of(schedule: str) -> list[Row]:
        return [row for row in wide if row["schedule"] == schedule]

    def change(rows: list[Row]) -> str:
        return points([row["test_accuracy"] - row["test_accuracy_full"] for row in rows])

    cut, even = of("one cut, rate 0.1"), of("16 rounds, rate 0.03")
    rounds = of("16 rounds, rate 0.03, half at the end")
    pairs = zip(cut, rounds, strict=True)
    time = mean(quick["seconds"] / slow["seconds"] for quick, slow in pairs)
    return (
        "**Where the fine-tuning goes.** The sixteen rounds of `laptop` save half of their batches "
        f"for the last network. Measured side by side, that changes the test accuracy by "
        f"{change(rounds)} points; batches that are spread evenly change it by {change(even)}. "
        "`--preset one-cut` takes the same networks to the same size at once, with as many batches "
        f"at a higher rate: {change(cut)} points, in {time:.2f} of the time of these rounds "
        "([schedules](docs/results.md#schedules))."
    )


def clock_table(run: Row) -> str:
    """Seconds of the notebooks, and of what make does."""
    rows = ["| | first picture, s | end, s |", "|---|---|---|"]
    for row in run["notebooks"]:
        rows.append(f"| {row['name']} | {row['first_picture_seconds']} | {row['seconds']} |")
    for row in [*run["run"], *run["test"]]:
        rows.append(f"| `{row['name']}` | | {row['seconds']} |")
    return "\n".join(rows)
