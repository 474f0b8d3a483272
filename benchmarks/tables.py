"""Write the measured tables and figures of README.md and docs/ from data/recorded_runs/.

    python benchmarks/tables.py            writes them
    python benchmarks/tables.py --check    exit status 1 if a text differs from what is recorded

No number of these tables is written by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import criteria_tables
import impact_tables
import loop_tables
import peer_tables
import speed_tables
from classroom_tables import minutes_table, server_table
from recording import RECORDED, ROOT

from course_lib import plots

FIGURES = ROOT / "docs" / "figures"


def recorded(name: str) -> dict[str, Any]:
    """A recorded run."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def source_line(run: dict[str, Any], name: str) -> str:
    """Where a table comes from, in a sentence."""
    machine, source = run["machine"], run["source"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    if machine["device"].startswith("cuda"):
        threads = machine["processor"]
    return (
        f"From `data/recorded_runs/{name}.json`: `{source['command']}`, {source['date']}, "
        f"torch {machine['torch']} on {machine['device']}, {threads}."
    )


def measured(name: str, *tables: Callable[[dict[str, Any]], str]) -> str:
    """Tables of a record, and where they come from; or that there is none yet."""
    if not (RECORDED / f"{name}.json").exists():
        return f"Not measured yet: there is no `data/recorded_runs/{name}.json`."
    run = recorded(name)
    return "\n\n".join([*(table(run) for table in tables), source_line(run, name)])


GPU_TABLES = {
    "gpu_paper": speed_tables.gpu_paper_table,
    "gpu_speed": speed_tables.gpu_speed_table,
    "gpu_ceiling": speed_tables.gpu_ceiling_table,
    "gpu_tests": speed_tables.gpu_tests,
}


def gpu_block() -> str:
    """What was measured on a GPU, or that nothing was."""
    there = [name for name in GPU_TABLES if (RECORDED / f"{name}.json").exists()]
    blocks = [measured(name, GPU_TABLES[name]) for name in there]
    return "\n\n".join(blocks) or "Not measured on a GPU yet."


def laptop_table() -> str:
    """A row a seed, the mean, and the fair control."""
    run = recorded("laptop")
    rows = [
        "| seed | full: validation | full: test | pruned: test | change, points |"
        " parameters left | MACs left | images per second | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in run["seeds"]:
        low, high = row["ratio_images_per_second_range"]
        minutes = sum(row["seconds"].values()) / 60
        rows.append(
            f"| {row['seed']} | {row['val_accuracy_full']:.2%} | {row['test_accuracy_full']:.2%} "
            f"| {row['test_accuracy_pruned']:.2%} "
            f"| {100 * row['ratio_test_accuracy_change']:+.2f} | {row['ratio_parameters']:.1%} "
            f"| {row['ratio_macs']:.1%} "
            f"| ×{row['ratio_images_per_second']:.2f} ({low:.2f}–{high:.2f}) | {minutes:.1f} |"
        )
    mean = run["mean"]
    rows.append(
        f"| mean | | {mean['test_accuracy_full']:.2%} | {mean['test_accuracy_pruned']:.2%} "
        f"| {100 * run['mean_test_accuracy_change']:+.2f} | | "
        f"| ×{mean['ratio_images_per_second']:.2f} | |"
    )
    words = f"{SPEED_WORDS} {control_sentence(run)} {source_line(run, 'laptop')}"
    return "\n".join([*rows, "", words])


SPEED_WORDS = (
    "Images per second: the pruned network's over the full one's, 64 images at a time with batch "
    "norm folded; the ratio of the medians, and the range of the ratios within alternating passes."
)


def control_sentence(run: dict[str, Any]) -> str:
    """What the full network reaches if it is trained for as long."""
    control, first = run["control"], run["seeds"][0]
    more = 100 * (control["test_accuracy"] - first["test_accuracy_pruned"])
    return (
        f"The fair control: the full network of seed {first['seed']}, trained for as many "
        f"batches as the pruned one had in all ({control['batches']:,}), reaches "
        f"{control['test_accuracy']:.2%} on the test set, {more:.2f} points more "
        "than the pruned one."
    )


def headline() -> str:
    """The laptop preset in five lines: the full and the pruned network, over the seeds."""
    run, spread = recorded("laptop"), criteria_tables.spread
    seeds = run["seeds"]
    first = recorded(f"laptop_seed{seeds[0]['seed']}")["summary"]
    full, pruned, ratios = first["full"], first["final"], first["ratios"]
    speeds = [row["ratio_images_per_second"] for row in seeds]
    minutes = sum(sum(row["seconds"].values()) for row in seeds) / 60 / len(seeds)
    changes = [row["ratio_test_accuracy_change"] for row in seeds]
    rows = [
        f"`make run` with {len(seeds)} seeds, {minutes:.0f} minutes each on two CPU cores; mean "
        "(range over the seeds):",
        "",
        "| | full | pruned | |",
        "|---|---|---|---|",
    ]
    for name, key in (("parameters", "parameters"), ("multiply-accumulates (MACs)", "macs")):
        rows.append(
            f"| {name} | {full[key] / 1e6:.1f} million | {pruned[key] / 1e6:.1f} million "
            f"| {ratios[key]:.1%} left |"
        )
    accuracies = [[row[f"test_accuracy_{of}"] for row in seeds] for of in ("full", "pruned")]
    rows += [
        f"| test accuracy | {' | '.join(map(spread, accuracies))} "
        f"| {loop_tables.points(changes)} points |",
        f"| images per second | ×1 | ×{sum(speeds) / len(speeds):.1f} "
        f"| ×{min(speeds):.1f} to ×{max(speeds):.1f} |",
    ]
    return "\n".join([*rows, "", control_sentence(run)])


def time_table() -> str:
    """Where the minutes of a laptop run go."""
    run = recorded("laptop")
    names = list(run["seeds"][0]["seconds"])
    rows = [f"| seed | {' | '.join(names)} | in all |", "|---" * (len(names) + 2) + "|"]
    for row in run["seeds"]:
        spent = row["seconds"]
        cells = " | ".join(f"{spent[name]:.0f} s" for name in names)
        rows.append(f"| {row['seed']} | {cells} | {sum(spent.values()):.0f} s |")
    return "\n".join(rows)


def real_table() -> str:
    """Real images: a row a data set."""
    run = recorded("real_images")
    rows = [
        "| data | full: test | pruned: test | change, points | parameters left | MACs left |"
        " images per second | rounds that passed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in run["runs"]:
        ratios = row["ratios"]
        low, high = ratios["images_per_second_range"]
        rows.append(
            f"| {row['data']} | {row['full']['test_accuracy']:.2%} "
            f"| {row['final']['test_accuracy']:.2%} "
            f"| {100 * ratios['test_accuracy_change']:+.2f} | {ratios['parameters']:.1%} "
            f"| {ratios['macs']:.1%} | ×{ratios['images_per_second']:.2f} ({low:.2f}–{high:.2f}) "
            f"| {row['rounds_passed']} |"
        )
    options = run["runs"][0]["options"]
    return "\n".join([*rows, "", f"Options: `{options}`. {source_line(run, 'real_images')}"])


def photographs_table() -> str:
    """What more training and smoothed labels do for a small set of photographs."""
    run = recorded("photographs")
    rows = ["| base training | validation: mean (range) | test: mean (range) |", "|---|---|---|"]
    for name in dict.fromkeys(training["variant"] for training in run["trainings"]):
        same = [training for training in run["trainings"] if training["variant"] == name]
        parts = ("val_accuracy", "test_accuracy")
        found = [[training[part] for training in same] for part in parts]
        cells = " | ".join(map(criteria_tables.spread, found))
        rows.append(f"| {name} | {cells} |")
    return "\n".join([*rows, "", source_line(run, "photographs")])


def from_scratch_table() -> str:
    """Pruned networks and others of their size: a row a way to train, over the seeds."""
    run = recorded("from_scratch")
    rows = [
        "| network | trained | batches | compute | compute before, to find it | test: mean |"
        " test: each seed |",
        "|---|---|---|---|---|---|---|",
    ]
    unit = next(row["compute"] for row in run["rows"] if row["arm"] == "pruned")
    ways = dict.fromkeys((row["kind"], row["left"], row["arm"]) for row in run["rows"])
    for kind, left, arm in ways:
        found = [r for r in run["rows"] if (r["kind"], r["left"], r["arm"]) == (kind, left, arm)]
        found.sort(key=lambda row: row["seed"])
        reached = [row["test_accuracy"] for row in found]
        name = "full" if kind == "full" else f"{left:.1%} left, {kind} removed"
        seeds = ", ".join(f"{value:.2%}" for value in reached)
        rows.append(
            f"| {name} | {arm} | {found[0]['batches']:,} | {found[0]['compute'] / unit:.2f} "
            f"| {found[0]['compute_before'] / unit:.2f} "
            f"| {sum(reached) / len(reached):.2%} | {seeds} |"
        )
    return "\n".join([*rows, "", source_line(run, "from_scratch")])


def challenge_table() -> str:
    """What to expect of the challenge: the recipe beside the two networks it may begin with."""
    if not (RECORDED / "challenge.json").exists():
        return "Not recorded yet: `python benchmarks/challenge.py` measures it."
    run = recorded("challenge")
    rows = ["| network | right answers | parameters | MACs |", "|---|---|---|---|"]
    for row in run["entries"]:
        share = row["right"] / row["images"]
        error = (share * (1 - share) / row["images"]) ** 0.5
        under = "" if share >= row["gate"] else ", under the gate"
        rows.append(
            f"| {row['name']} | {share:.2%} ± {error:.2%}{under} | {row['parameters']:,} "
            f"| {row['macs']:,} |"
        )
    last = next(row for row in reversed(run["rounds"]) if row["passed"])
    return "\n".join(
        [
            *rows,
            "",
            f"Scored on {run['entries'][0]['images']:,} images under the secret "
            f'"{run["secret"]}". The recipe above took {run["recipe_seconds"] / 60:.1f} minutes; '
            f"its last network over its own gate is that of round {last['round']}, right on "
            f"{last['val_accuracy']:.2%} of the validation images. {source_line(run, 'challenge')}",
        ]
    )


def figures() -> dict[str, Any]:
    """The article's figures 6, 7 and 8, from the recorded run of the first seed."""
    run = recorded("laptop")
    first = recorded(f"laptop_seed{run['seeds'][0]['seed']}")
    return {
        "laptop_accuracy": plots.accuracy_figure(first["curve"], first["history"]),
        "laptop_size": plots.size_figure(first["history"]),
        "laptop_throughput": plots.throughput_figure(first["history"]),
    }


def picture(name: str, folder: str) -> str:
    """A figure with its alt text, as Markdown."""
    return f"![{plots.alt_text(figures()[name])}]({folder}{name}.png)"


def readme() -> str:
    """The marked part of README.md."""
    findings = [
        loop_tables.one_cut_sentence(recorded("schedules")),
        peer_tables.frontier_sentence(recorded("frontier")),
        peer_tables.recipes_sentence(recorded("recipes")),
    ]
    parts = [headline(), picture("laptop_accuracy", "docs/figures/")]
    return "\n\n".join([*parts, "\n".join(f"- {finding}" for finding in findings)])


BLOCKS = {
    "README.md": {"measured": readme},
    "docs/challenge.md": {"challenge": challenge_table},
    "docs/criteria.md": {
        "cost": lambda: measured("criteria_cost", criteria_tables.criteria_cost_table),
        "obd": lambda: criteria_tables.obd_table(recorded("criteria_cost")),
    },
    "docs/scaling.md": {
        "steps": lambda: measured("scaling", speed_tables.scaling_table),
        "surgery": lambda: measured("scaling", speed_tables.surgery_table),
    },
    "docs/results.md": {
        "speed limit": lambda: measured("speed_limit", speed_tables.limit_table),
        "speed by part": lambda: measured("speed_limit", speed_tables.part_table),
        "gpu": gpu_block,
        "laptop": laptop_table,
        "laptop time": time_table,
        "real images": real_table,
        "photographs": photographs_table,
        "schedules": lambda: measured("schedules", loop_tables.schedules_table),
        "critical filters": lambda: measured("critical_filters", criteria_tables.critical_table),
        "criteria at once": lambda: measured(
            "criteria", partial(criteria_tables.criteria_block, schedule="one-shot")
        ),
        "criteria in rounds": lambda: measured(
            "criteria", partial(criteria_tables.criteria_block, schedule="rounds")
        ),
        "from scratch": from_scratch_table,
        "impact": lambda: impact_tables.written(recorded("impact"), source_line),
        "machinery": lambda: measured(
            "machinery", loop_tables.machinery_table, loop_tables.growth_table
        ),
        "training loop": lambda: measured(
            "training_loop", loop_tables.memory_table, loop_tables.folder_table
        ),
        "course clock": lambda: measured("course_clock", loop_tables.clock_table),
        "pruners": lambda: measured("against_torch_pruning", peer_tables.pruners_table),
        "recipes": lambda: measured("recipes", peer_tables.recipes_table),
        "frontier": lambda: measured("frontier", peer_tables.frontier_table),
        "frontier cifar10": lambda: measured("frontier_cifar10", peer_tables.frontier_table),
        "laptop figures": lambda: "\n\n".join(picture(name, "figures/") for name in figures()),
    },
    "docs/teaching.md": {
        "classroom minutes": lambda: minutes_table(recorded("classroom")),
        "classroom server": lambda: server_table(recorded("classroom")),
    },
}


def written(path: str) -> str:
    """The text of a document with its marked parts as the recorded runs have them."""
    text = (ROOT / path).read_text(encoding="utf-8")
    for name, block in BLOCKS[path].items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{block()}\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    """Write every marked part and figure, or check that the texts are as they would be written."""
    parser = argparse.ArgumentParser(description="Measured tables from data/recorded_runs/.")
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [path for path in BLOCKS if written(path) != (ROOT / path).read_text(encoding="utf-8")]
    if check:
        for path in stale:
            print(f"{path} differs from data/recorded_runs/: run python benchmarks/tables.py")
        return int(bool(stale))
    for path in stale:
        (ROOT / path).write_text(written(path), encoding="utf-8")
    FIGURES.mkdir(exist_ok=True)
    for name, figure in figures().items():
        with open(FIGURES / f"{name}.png", "wb") as file:
            plots.save(figure, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
