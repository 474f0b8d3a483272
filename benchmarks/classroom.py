"""What a class needs: time, memory and length of every notebook, each run in a fresh kernel.

    python benchmarks/classroom.py                     all ten, one after the other
    python benchmarks/classroom.py --counts            words, cells and exercises again, no running
    python benchmarks/classroom.py --busy              says in the record that other work ran beside

One thread, on the CPU, with an empty cache of images at the beginning, as on a learner's first day.
Memory is the resident set of the kernel and its child processes, looked at twenty times a second.
About eight minutes on an idle machine; writes data/recorded_runs/classroom.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget
from recording import RECORDED, ROOT, source

from course_lib.report import machine

COMMAND = "python benchmarks/classroom.py"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
EXERCISE = re.compile(r"^### Exercise \d\d\.\d+.*\n+\*★.*? · (\d+) minutes\*", re.MULTILINE)
ASIDE = re.compile(r"```.*?```|<details.*?</details>|^## References.*", re.DOTALL | re.MULTILINE)
LIMIT = 600  # seconds a cell

# nbclient now and then waits for ever for an Output widget's state, which nothing here needs.
OutputWidget.sync_state = lambda self: None  # type: ignore[method-assign]


def counts(path: Path) -> dict[str, Any]:
    """What there is to read and to do; words without code, folded answers and references."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    text = [cell.source for cell in cells if cell.cell_type == "markdown"]
    minutes = [int(found) for part in text for found in EXERCISE.findall(part)]
    return {
        "words": sum(len(ASIDE.sub("", part).split()) for part in text),
        "code_cells": len(code),
        "exercises": len(minutes),
        "exercise_minutes": sum(minutes),
        "predictions": sum(part.count('predict("') for part in code),
    }


def resident_megabytes(process: psutil.Process) -> float:
    """Memory in use by a process and its children."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:  # it ended in between
            continue
    return total / 1e6


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and of those of its children that have ended."""
    times = process.cpu_times()
    return float(sum(times[:4]))  # user, system, and both of the children


class Peak(threading.Thread):
    """Watches a process until it is told to stop; `megabytes` is the most it saw."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.megabytes, self.done = process, 0.0, threading.Event()

    def run(self) -> None:
        """Twenty looks a second."""
        while not self.done.wait(0.05):
            try:
                self.megabytes = max(self.megabytes, resident_megabytes(self.process))
            except psutil.NoSuchProcess:
                return


def has_picture(cell: Any) -> bool:
    """Does the cell show a figure?"""
    return any("image/png" in out.get("data", {}) for out in cell.get("outputs", []))


def measured(path: Path) -> dict[str, float | None]:
    """Run one notebook from a fresh kernel to its end; nothing is written back."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": path.parent}}
    client = NotebookClient(notebook, timeout=LIMIT, kernel_name="python3", resources=place)
    started, first_figure, longest = time.perf_counter(), None, 0.0
    with client.setup_kernel():
        assert client.km is not None
        kernel = psutil.Process(client.km.provisioner.process.pid)
        peak = Peak(kernel)
        peak.start()
        for number, cell in enumerate(notebook.cells):
            before = cpu_seconds(kernel)
            client.execute_cell(cell, number)
            longest = max(longest, cpu_seconds(kernel) - before)
            if first_figure is None and has_picture(cell):
                first_figure = round(time.perf_counter() - started, 1)
        seconds, cpu = time.perf_counter() - started, cpu_seconds(kernel)
        peak.done.set()
        peak.join()
    return {
        "seconds": round(seconds, 1),
        "first_figure_seconds": first_figure,
        "cpu_seconds": round(cpu, 1),
        "longest_cell_cpu_seconds": round(longest, 1),
        "peak_megabytes": round(peak.megabytes),
    }


def server_megabytes() -> int:
    """What JupyterLab's own process holds once it answers: each learner has one beside a kernel."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--port={port}", f"--notebook-dir={ROOT}"]
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-m", "jupyter", "lab", *options]
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as server:
        try:
            _wait_for(f"http://127.0.0.1:{port}/api")
            return round(resident_megabytes(psutil.Process(server.pid)))
        finally:
            server.terminate()


def _wait_for(address: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError("JupyterLab did not answer")


def run_all(paths: Sequence[Path]) -> dict[str, Any]:
    """Every notebook in turn, as somebody works through the course on a new machine."""
    server = server_megabytes()
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        os.environ |= {"COURSE_DEVICE": "cpu", "COURSE_PROGRESS": "off"}
        os.environ["PRUNING_RESNETS_CACHE"] = cache
        rows = []
        for path in paths:
            rows.append({"notebook": path.stem, **counts(path), **measured(path)})
            print(rows[-1])
        files = [file for file in Path(cache).rglob("*") if file.is_file()]
        drawn = sum(file.stat().st_size for file in files) / 1e6
    return {
        "machine": {**machine(torch.device("cpu")), "threads": 1},  # those of the kernels
        "server_megabytes": server,
        "cache_megabytes": round(drawn),
        "notebooks": rows,
    }


def main() -> None:
    """Measure, or count again, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS)
    parser.add_argument("--counts", action="store_true", help="count words and exercises only")
    parser.add_argument("--busy", action="store_true", help="other work runs beside: say so")
    parser.add_argument("--out", type=Path, default=RECORDED / "classroom.json")
    options = parser.parse_args()
    if options.counts:
        content = json.loads(options.out.read_text(encoding="utf-8"))
        for row in content["notebooks"]:
            row |= counts(ROOT / "notebooks" / f"{row['notebook']}.ipynb")
    else:
        paths = [path.resolve() for path in options.notebooks]
        content = {"source": source(COMMAND), "busy": options.busy, **run_all(paths)}
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
