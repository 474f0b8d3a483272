"""Seconds to the first picture and to the end of every notebook, of `make run` and of `make test`.

    python benchmarks/course_clock.py [--notebooks] [--run] [--test]

All three, unless some are named. Warm: the environment is set up and the generated images are drawn
before the clock starts. Notebooks run in a fresh kernel, as with Restart & Run All, on all threads
that PyTorch takes by itself, and nothing is written to them; the tests run them with one. `make
run` trains in a folder of its own, with the presets `smoke` and `laptop`. About twenty-five minutes
on two cores with nothing else running; what was interrupted goes on when the command is given
again, and what was measured of this commit with other options stays in the record; to measure anew
remove runs/bench-clock. Writes data/recorded_runs/course_clock.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import torch
from recording import RECORDED, ROOT, in_parts, record, source

from course_lib.config import PRESETS
from course_lib.report import machine
from course_lib.run import load_data

COMMAND = "python benchmarks/course_clock.py"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MADE = ("smoke", "laptop")  # presets


def notebook(path: Path) -> dict[str, Any]:
    """Run a notebook without keeping what it shows."""
    outside = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, str(torch.get_num_threads()))  # else the tests' one thread
    sys.path.append(str(ROOT / "tests"))
    try:
        import conditions
        import rerun

        conditions.set_them()  # nobody's progress is written
        return rerun.execute(nbformat.read(path, as_version=4), path.parent)
    finally:
        sys.path.pop()
        os.environ.clear()
        os.environ.update(outside)


def make(*words: str) -> dict[str, float]:
    """The seconds of a target of the Makefile, which must succeed."""
    start = time.perf_counter()
    subprocess.run(["make", *words], cwd=ROOT, check=True)
    return {"seconds": round(time.perf_counter() - start, 1)}


def make_run(preset: str) -> dict[str, float]:
    """A whole run with its report, from set up and drawn."""
    load_data(PRESETS[preset], None, True)
    make("setup")
    with tempfile.TemporaryDirectory() as folder:
        return make("run", f"PRESET={preset}", f"OUT={folder}/run")


def make_test() -> dict[str, float]:
    """Every test of `make test`."""
    make("setup")
    return make("test")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what isn't measured yet, then record all that is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in ("notebooks", "run", "test"):
        parser.add_argument(f"--{kind}", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-clock")
    parser.add_argument("--record", type=Path, default=RECORDED, help="folder of the JSON file")
    options = parser.parse_args(arguments)
    kinds: dict[str, dict[str, Callable[[], Any]]] = {
        "notebooks": {path.stem: partial(notebook, path) for path in NOTEBOOKS},
        "run": {f"make run PRESET={preset}": partial(make_run, preset) for preset in MADE},
        "test": {"make test": make_test},
    }
    wanted = [kind for kind in kinds if getattr(options, kind)] or list(kinds)
    path, setting = options.out / "parts.json", {"commit": source("")["commit"]}
    in_parts(path, setting, {name: part for kind in wanted for name, part in kinds[kind].items()})
    every = {name: part for parts in kinds.values() for name, part in parts.items()}
    done = in_parts(path, setting, every, minutes=0)
    rows = {
        kind: [{"name": name, **done[name]["result"]} for name in parts if name in done]
        for kind, parts in kinds.items()
    }
    record(
        "course_clock", COMMAND, {**rows, "machine": machine(torch.device("cpu"))}, options.record
    )


if __name__ == "__main__":
    main()
