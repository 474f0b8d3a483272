"""What the benchmarks share: runs of the command line, and records of what came out."""

from __future__ import annotations

import datetime
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
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
    return written(out)


def written(out: Path) -> dict[str, Any]:
    """What a finished run wrote: its summary, history and curve."""
    return {
        "summary": json.loads((out / "summary.json").read_text(encoding="utf-8")),
        "history": lines(out / "history.jsonl"),
        "curve": lines(out / "curve.jsonl"),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def source(command: str, commit: str | None = None) -> dict[str, str]:
    """Where a record came from: the command, without paths of this machine.

    `commit`: for a machine that has the files without their history.
    """
    if commit is None:
        git = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    return {"command": command, "commit": commit, "date": datetime.date.today().isoformat()}


def record(
    name: str,
    command: str,
    content: dict[str, Any],
    folder: Path = RECORDED,
    commit: str | None = None,
) -> None:
    """Write a recorded run and where it came from."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"source": source(command, commit), **content}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")


def in_parts(
    path: Path,
    setting: dict[str, Any],
    parts: Mapping[str, Callable[[], Any]],
    minutes: float = math.inf,
) -> dict[str, dict[str, Any]]:
    """Each part's `result` and the `seconds` it took, by name, in order.

    They are kept in the file `path`, and a part that an earlier call has done under the same
    setting is read from there. Once `minutes` are over no further part begins, so some are missing.
    """
    started = time.perf_counter()
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    done = kept.get("done", {}) if kept.get("setting") == setting else {}
    for name, part in parts.items():
        if name in done:
            continue
        if time.perf_counter() - started > 60 * minutes:
            break
        clock = time.perf_counter()
        result = part()
        done[name] = {"result": result, "seconds": round(time.perf_counter() - clock, 1)}
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps({"setting": setting, "done": done}))
        os.replace(aside, path)
        print(f"{name}: {done[name]['seconds']} s", flush=True)
    return {name: done[name] for name in parts if name in done}
