"""The notebooks as the tests see them: cells, exercises, outputs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
IGNORED = "nbval-ignore-output"

_CHECK = re.compile(r"""\bcheck\(\s*["'](\d\d\.\d+)["']\s*,\s*(\w+)\s*\)""")
_SOLUTION = re.compile(r'<details id="solution-(\d\d\.\d+)">')
_CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
_FIGURE_TEXT = "Figure: "


@dataclass(frozen=True)
class OnPage:
    """An exercise as a notebook shows it. stub, solution: Python; name: what the check is given."""

    id: str
    name: str
    stub: str
    hint: str
    solution: str


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def setup_source(notebook: Any) -> str:
    """The first code cell: the imports, which stubs and solutions may use."""
    return str(code_cells(notebook)[0].source)


def checks(notebook: Any) -> dict[str, tuple[int, str]]:
    """Exercise → the place of its check cell, and the name that it checks."""
    found = {}
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            for exercise, name in _CHECK.findall(cell.source):
                assert exercise not in found, f"{exercise} is checked twice"
                found[exercise] = (place, name)
    return found


def exercises(notebook: Any) -> dict[str, OnPage]:
    """What a notebook shows of each exercise: the stub stands in the code cell before its check."""
    solutions = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for exercise in _SOLUTION.findall(cell.source):
                assert exercise not in solutions, f"{exercise} has two solutions"
                solutions[exercise] = "\n".join(_CODE.findall(cell.source))
    found = {}
    for exercise, (place, name) in checks(notebook).items():
        before = [cell for cell in notebook.cells[:place] if cell.cell_type == "code"]
        after = notebook.cells[place + 1 : place + 4]
        hints = [cell.source for cell in after if "<summary>Hint" in cell.source]
        found[exercise] = OnPage(
            exercise, name, before[-1].source, "".join(hints), solutions.get(exercise, "")
        )
    return found


def outputs(cell: Any) -> list[Any]:
    return list(cell.get("outputs", []))


def images(cell: Any) -> list[Any]:
    return [out for out in outputs(cell) if "image/png" in out.get("data", {})]


def is_compared(cell: Any) -> bool:
    """Does nbval compare anything of this cell? Pictures and widgets are never compared."""
    if IGNORED in tags(cell) or cell.get("execution_count") is None:
        return False
    return any(
        out.output_type == "stream"
        or set(out.get("data", {})) - {"image/png", "image/jpeg", WIDGET, "text/plain"}
        or ("text/plain" in out.get("data", {}) and WIDGET not in out["data"])
        for out in outputs(cell)
    )


WIDGET = "application/vnd.jupyter.widget-view+json"
