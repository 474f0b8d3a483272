"""What to expect of the challenge: the recipe of docs/challenge.md, timed, and how it scores.

    python benchmarks/challenge.py

Runs the first Python block of that page as it stands there, then scores its network beside the two
of data/small/. Takes about five minutes on two cores.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from recording import ROOT, lines, record

from course_lib import challenge, small
from course_lib.report import machine
from course_lib.submission import read_submission

COMMAND = "python benchmarks/challenge.py"
SECRET = "an example, and so no secret"


def recipe() -> str:
    """The program that docs/challenge.md shows."""
    text = (ROOT / "docs" / "challenge.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0]


def measured(program: str, work: Path, images: int) -> dict[str, Any]:
    """Run the recipe in the folder `work`; its seconds and rounds, and the scores of all three."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, cwd=work)
    seconds = time.perf_counter() - started
    files = {f"{name}.pt": small.FOLDER / f"{name}.pt" for name in small.NAMES}
    files["the recipe"] = work / "anna.pt"
    submissions = {name: read_submission(path) for name, path in files.items()}
    entries = challenge.score(submissions, SECRET, images=images)
    history = lines(work / "runs" / "anna" / "history.jsonl")
    kept = ("round", "parameters", "macs", "val_accuracy", "passed", "seconds")
    return {
        "secret": SECRET,
        "entries": [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.rank)],
        "recipe_seconds": round(seconds, 1),
        "rounds": [{key: line[key] for key in kept} for line in history],
        "machine": machine(torch.device("cpu")),
    }


def main() -> None:
    """Measure and record."""
    with tempfile.TemporaryDirectory() as work:
        content = measured(recipe(), Path(work), challenge.IMAGES)
    record("challenge", COMMAND, content)
    print(f"the recipe took {content['recipe_seconds']} seconds")


if __name__ == "__main__":
    main()
