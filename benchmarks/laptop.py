"""The laptop preset over seeds, and beside it the fair control.

    python benchmarks/laptop.py [--out runs/bench-laptop] [--seeds 0 1 2]

Writes data/recorded_runs/laptop*.json. The control is the full network trained for as many batches
as the pruned one has had in all (seed 0). A run that was interrupted goes on when the command is
given again; nothing else should run meanwhile, since seconds and images per second are measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "data" / "recorded_runs"


def run(out: Path, *options: str) -> dict[str, Any]:
    """A run of the command line, begun or resumed; its summary, history and curve."""
    command = [sys.executable, "-m", "course_lib", "run", "--out", str(out), *options]
    if (out / "config.json").exists():
        command.append("--resume")
    subprocess.run(command, check=True, cwd=ROOT)
    return {
        "summary": json.loads((out / "summary.json").read_text()),
        "history": lines(out / "history.jsonl"),
        "curve": lines(out / "curve.jsonl"),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(name: str, content: dict[str, Any]) -> None:
    """Write a recorded run with where it came from."""
    git = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    source = {
        "command": "python " + " ".join(["benchmarks/laptop.py", *sys.argv[1:]]),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }
    RECORDED.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"source": source, **content}, indent=1)
    (RECORDED / f"{name}.json").write_text(text + "\n")


def table(runs: dict[str, dict[str, Any]], control: dict[str, Any]) -> dict[str, Any]:
    """What the README and docs/results.md quote: a row a seed, the means, the control."""
    rows = []
    for seed, result in runs.items():
        summary = result["summary"]
        rows.append(
            {
                "seed": int(seed),
                "val_accuracy_full": summary["full"]["val_accuracy"],
                "test_accuracy_full": summary["full"]["test_accuracy"],
                "test_accuracy_pruned": summary["final"]["test_accuracy"],
                **{f"ratio_{name}": value for name, value in summary["ratios"].items()},
                "seconds": summary["seconds"],
            }
        )
    names = ("test_accuracy_full", "test_accuracy_pruned", "ratio_images_per_second")
    return {
        "seeds": rows,
        "mean": {name: mean(row[name] for row in rows) for name in names},
        "mean_test_accuracy_change": mean(row["ratio_test_accuracy_change"] for row in rows),
        "control": {
            "what": "full network, seed 0, as many batches as the pruned one in all",
            "batches": control["history"][0]["batches"],
            "test_accuracy": control["summary"]["full"]["test_accuracy"],
            "seconds": control["summary"]["seconds"],
        },
        "machine": next(iter(runs.values()))["summary"]["machine"],
    }


def main() -> None:
    """Run what isn't done yet, then record all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-laptop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    runs = {
        str(seed): run(options.out / f"seed{seed}", "--preset", "laptop", "--seed", str(seed))
        for seed in options.seeds
    }
    batches = runs[str(options.seeds[0])]["history"][-1]["batches"]
    control = run(
        options.out / "control",
        *("--preset", "laptop", "--rounds", "0", "--batches", str(batches)),
        *("--seed", str(options.seeds[0])),
    )
    record("laptop", table(runs, control))
    for seed, result in runs.items():
        record(f"laptop_seed{seed}", result)
    print(json.dumps(table(runs, control), indent=1))


if __name__ == "__main__":
    main()
