"""The tables of docs/teaching.md, from data/recorded_runs/classroom.json; tables.py writes them."""

from __future__ import annotations

from typing import Any

# Half of the 238 that adults read of English non-fiction on average (Brysbaert 2019): there is code
# to read as well. An assumption, as are the minutes for a prediction.
WORDS_A_MINUTE = 120
PREDICTION_MINUTES = 2
LEARNERS = 30
CORES = (8, 16, 32)


def reading_minutes(row: dict[str, Any]) -> float:
    """An estimate, from the words of a notebook."""
    return float(row["words"]) / WORDS_A_MINUTE


def minutes_in_all(row: dict[str, Any]) -> float:
    """An estimate: reading, exercises as their authors put them, predictions."""
    predictions = PREDICTION_MINUTES * row["predictions"]
    return reading_minutes(row) + float(row["exercise_minutes"]) + predictions


def short(row: dict[str, Any]) -> str:
    """The number of a notebook."""
    return str(row["notebook"][:2])


def minutes_table(run: dict[str, Any]) -> str:
    """A row a notebook: what was measured first, then what is estimated."""
    lines = [
        "| notebook | Run All, s | first figure after, s | words | reading, min | exercises |"
        " exercises, min | predictions | minutes in all |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in run["notebooks"]:
        lines.append(
            f"| {short(row)} | {row['seconds']:.0f} | {row['first_figure_seconds']:.0f} "
            f"| {row['words']:,} | {reading_minutes(row):.0f} | {row['exercises']} "
            f"| {row['exercise_minutes']} | {row['predictions']} | {minutes_in_all(row):.0f} |"
        )
    rows = run["notebooks"]
    total = {key: sum(row[key] for row in rows) for key in ("words", "exercises", "predictions")}
    lines.append(
        f"| all | {sum(row['seconds'] for row in rows):.0f} | | {total['words']:,} "
        f"| {sum(map(reading_minutes, rows)):.0f} | {total['exercises']} "
        f"| {sum(row['exercise_minutes'] for row in rows)} | {total['predictions']} "
        f"| {sum(map(minutes_in_all, rows)):.0f} |"
    )
    busy = " Other work ran beside it, so the seconds are too long." if run["busy"] else ""
    return "\n".join([*lines, "", f"{_source(run)}{busy}"])


def server_table(run: dict[str, Any]) -> str:
    """What one learner takes, measured, and what a class takes, computed from it."""
    server = run["server_megabytes"]
    waits = " | ".join(f"{cores} cores, s" for cores in CORES)
    lines = [
        "| notebook | CPU s | slowest cell, CPU s | memory of the kernel, GB |"
        f" {LEARNERS} learners, GB | all press Run All: {waits} |",
        "|---" * (5 + len(CORES)) + "|",
    ]
    for row in run["notebooks"]:
        peak = row["peak_megabytes"]
        seconds = " | ".join(f"{LEARNERS * row['cpu_seconds'] / cores:.0f}" for cores in CORES)
        lines.append(
            f"| {short(row)} | {row['cpu_seconds']:.0f} | {row['longest_cell_cpu_seconds']:.0f} "
            f"| {peak / 1000:.1f} | {LEARNERS * (peak + server) / 1000:.0f} | {seconds} |"
        )
    largest = max(run["notebooks"], key=lambda row: row["peak_megabytes"])
    need = LEARNERS * (largest["peak_megabytes"] + server) / 1000
    return "\n".join(
        [
            *lines,
            "",
            f"JupyterLab's own process holds {server / 1000:.2f} GB for each learner, and the "
            f"images that the notebooks draw take {run['cache_megabytes']} MB of disk for all ten. "
            f"So {LEARNERS} learners need at most {LEARNERS} × "
            f"({largest['peak_megabytes'] / 1000:.2f} + {server / 1000:.2f}) = {need:.0f} GB, in "
            f"notebook {short(largest)}, if all reach its peak at once. {_source(run)}",
        ]
    )


def _source(run: dict[str, Any]) -> str:
    source, machine = run["source"], run["machine"]
    return (
        f"From `data/recorded_runs/classroom.json`: `{source['command']}`, {source['date']}, "
        f"torch {machine['torch']}, Python {machine['python']}, one thread a kernel."
    )
