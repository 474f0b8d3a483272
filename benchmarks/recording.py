"""What the benchmarks share: runs of the command line, and records of what came out."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
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
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def source(command: str) -> dict[str, str]:
    """Where a record came from: the command, without paths of this machine."""
    git = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    return {"command": command, "commit": commit, "date": datetime.date.today().isoformat()}


def record(name: str, command: str, content: dict[str, Any]) -> None:
    """Write a recorded run and where it came from."""
    RECORDED.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"source": source(command), **content}, indent=1)
    (RECORDED / f"{name}.json").write_text(text + "\n")
