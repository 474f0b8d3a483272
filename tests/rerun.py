"""Run the notebooks and keep what they print: `python tests/rerun.py [NOTEBOOK …]`.

An output is replaced only where it really changed: a cell whose text is the same, but for numbers
marked ≈, keeps its old outputs, pictures and measured times included. --all replaces every output.
Seconds go to data/recorded_runs/notebooks.json: notebooks name them and a test compares them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

from conditions import set_them

set_them()

import nbformat
from course_notebooks import NOTEBOOKS, ROOT, code_cells, images
from nbclient import NotebookClient
from nbclient.output_widget import OutputWidget

RECORD = ROOT / "data" / "recorded_runs" / "notebooks.json"
CONFIG = ROOT / "tests" / "nbval.cfg"
LIMIT = 600  # seconds a cell

# nbclient now and then waits for ever for an Output widget's state, which nothing here needs.
OutputWidget.sync_state = lambda self: None  # type: ignore[method-assign]


def rules() -> list[tuple[re.Pattern[str], str]]:
    """What nbval takes out before it compares, from its own file."""
    text = CONFIG.read_text(encoding="utf-8")
    pairs = re.findall(r"^regex: (.*)\nreplace: (.*)$", text, re.MULTILINE)
    return [(re.compile(regex), replacement) for regex, replacement in pairs]


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs, pieces of one stream in a row made one: where it is cut is chance."""
    found: list[Any] = []
    for output in outputs:
        last = found[-1] if found else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            found[-1] = nbformat.from_dict({**last, "text": last["text"] + output.text})
        else:
            found.append(output)
    return found


def words(outputs: list[Any], taken_out: list[tuple[re.Pattern[str], str]]) -> list[str]:
    """The comparable text of a cell's outputs: streams of one kind in a row count as one."""
    found: list[str] = []
    for output in joined(outputs):
        data = output.get("data", {"text/plain": output.get("text", output.get("evalue", ""))})
        kinds = sorted(data)
        text = "".join(str(data[kind]) for kind in kinds if kind.startswith("text/"))
        for pattern, replacement in taken_out:
            text = pattern.sub(replacement, text)
        name = output.get("name", output.output_type)
        found.append(f"{kinds} {text}" if "data" in output else f"{name} {text}")
    return found


def keep_what_is_the_same(old: Any, new: Any) -> int:
    """Put a cell's old outputs back where source and text are unchanged; how many were replaced."""
    taken_out, before = rules(), {cell.id: cell for cell in code_cells(old)}
    replaced = 0
    for cell in code_cells(new):
        was = before.get(cell.id)
        same = (
            was is not None
            and was.execution_count is not None
            and words(was.outputs, taken_out) == words(cell.outputs, taken_out)
        )
        if same and was is not None:
            cell.outputs = was.outputs
        replaced += not same
    return replaced


def tidy(notebook: Any) -> None:
    """Without what differs from run to run and machine to machine and nobody reads."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata.language_info = {"name": "python"}
    for cell in code_cells(notebook):
        cell.metadata.pop("execution", None)
        cell.outputs = joined(cell.outputs)
        for output in cell.outputs:
            # Without its model a widget is an error message; the text beside it is readable.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def execute(notebook: Any, folder: Path) -> dict[str, float | None]:
    """Run every cell in a fresh kernel; seconds to the first picture (None: it has none), to the
    end, and of the processor. Raises nbclient's CellExecutionError.
    """
    before, started = os.times(), time.perf_counter()
    pictures: list[float] = []

    def look(cell: Any, **_: Any) -> None:
        if cell.cell_type == "code" and images(cell):
            pictures.append(time.perf_counter() - started)

    NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
        on_cell_executed=look,
    ).execute()
    seconds = time.perf_counter() - started
    after = os.times()  # of the kernel, which has ended by now; zero on Windows
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    first = round(pictures[0], 1) if pictures else None
    return {
        "first_picture_seconds": first,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
    }


def run(path: Path, replace_all: bool) -> dict[str, float | None]:
    """Execute one notebook in place. Raises nbclient's CellExecutionError; then nothing is kept."""
    old, notebook = nbformat.read(path, as_version=4), nbformat.read(path, as_version=4)
    measured = execute(notebook, path.parent)
    tidy(notebook)
    replaced = len(code_cells(notebook)) if replace_all else keep_what_is_the_same(old, notebook)
    nbformat.write(notebook, path)
    seconds, cpu = measured["seconds"], measured["cpu_seconds"]
    print(f"{path.name}: {seconds:.0f} s, {cpu:.0f} CPU seconds, {replaced} outputs replaced")
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS)
    parser.add_argument("--all", action="store_true", help="replace every output")
    options = parser.parse_args()
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for path in options.notebooks:
        measured = run(path.resolve(), options.all)
        threads = int(os.environ["OMP_NUM_THREADS"])
        record[path.stem] = {**measured, "threads": threads, "python": platform.python_version()}
        text = json.dumps(dict(sorted(record.items())), indent=2) + "\n"
        RECORD.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
