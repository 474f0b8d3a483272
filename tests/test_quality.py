"""Formatter, linter, type checker; sizes; and which module may import which."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "course_lib"
SOURCES = sorted(LIBRARY.rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES = 320, 60

# The table of modules in the architecture document is in the order of imports: a module imports
# only from rows above its own. A package is one entry; an __init__ has no row.
ROW = re.compile(r"^\| `([\w/]+)\.py` \|", re.MULTILINE)
MODULES = ROW.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
ORDER = list(dict.fromkeys(module.split("/")[0] for module in MODULES))

# Paths of one person's machine, and hosts of package registries, which users may have replaced.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(work|root|home|Users|farm)/\w")
REGISTRY = re.compile(r"\b(pypi|npmjs|pythonhosted|anaconda|debian)\.(org|com)\b")


def ids(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", ["ruff format --check .", "ruff check .", "mypy"])
def test_tool_is_content(arguments: str) -> None:
    done = run(*arguments.split())
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    long = {
        f"{node.name}, line {node.lineno}": node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MOST_FUNCTION_LINES
    }
    assert long == {}


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Full names of what a module of `package` imports, inside functions too.

    `from a import b` gives a.b: whether b is a module or a name in one, its first parts are right.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> list[str]:
    package = path.relative_to(ROOT).parent.parts
    return list(imported(ast.parse(path.read_text(encoding="utf-8")), package))


def layer(path: Path) -> str:
    return path.relative_to(LIBRARY).with_suffix("").parts[0]


def wrong_imports(name: str, imports: list[str]) -> list[str]:
    """What a module in the layer `name` imports from its own row or from rows below."""
    ours = [item.split(".")[1] for item in imports if item.split(".")[0] == "course_lib"]
    itself = {name} if (LIBRARY / name).is_dir() else set()
    allowed = {*ORDER[: ORDER.index(name)], *itself}
    return [item for item in ours if item not in allowed]


def test_architecture_document_has_a_row_for_every_module() -> None:
    there = [path.relative_to(LIBRARY).with_suffix("").as_posix() for path in SOURCES]
    assert sorted(MODULES) == [name for name in there if Path(name).name != "__init__"]


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_imports_point_one_way(path: Path) -> None:
    name = layer(path)
    if name == "__init__":
        assert imports_of(path) == []
        return
    assert name in ORDER, f"give {name} its row in docs/architecture.md"
    assert wrong_imports(name, imports_of(path)) == []


def test_import_check_sees_every_form() -> None:
    text = (
        "import torch\nimport course_lib.iterate\nfrom course_lib import plots, errors\n"
        "def f():\n    from course_lib.training import accuracy\n    from . import __main__\n"
    )
    imports = list(imported(ast.parse(text), ("course_lib",)))
    assert wrong_imports("measure", imports) == ["iterate", "plots", "__main__"]
    inner = list(imported(ast.parse("from .groups import Group\nfrom ..data import x"), PRUNING))
    assert inner == ["course_lib.pruning.groups.Group", "course_lib.data.x"]


PRUNING = ("course_lib", "pruning")
PRUNING_SOURCES = sorted((LIBRARY / "pruning").rglob("*.py"))


@pytest.mark.parametrize("path", PRUNING_SOURCES, ids=ids(PRUNING_SOURCES))
def test_pruning_can_be_copied_away(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    foreign = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
    assert foreign <= {"torch", "course_lib"}
    # Its own modules are named relatively, and from inside the folder, so that it works under any
    # name: one dot is the module's own package, and each further one is the package around it.
    inside = len(path.relative_to(LIBRARY / "pruning").parts)
    absolute = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and node.level > inside)
        or (
            isinstance(node, ast.ImportFrom) and not node.level and "course_lib" in str(node.module)
        )
        or (isinstance(node, ast.Import) and any("course_lib" in a.name for a in node.names))
    ]
    assert absolute == []


def own_files() -> list[Path]:
    """The files that are in the repository or would be added to it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so which files belong to the project isn't known")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in own_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for pattern in (MACHINE_PATH, REGISTRY):
            found += [f"{path.relative_to(ROOT)}: {hit.group()}" for hit in pattern.finditer(text)]
    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    paths = ["/" + "home/me/x", '"/' + 'root/x"', "(/" + "Users/me)"]
    assert all(MACHINE_PATH.search(path) for path in paths)
    assert not MACHINE_PATH.search("https://example.org/" + "work/x and ./" + "work/x")
    assert REGISTRY.search("https://" + "pypi" + ".org/simple")
