"""`make bundle`: what it gathers, whom its scripts refuse, that it installs without a network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import handout
import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("bundle", ROOT / "docs" / "bundle" / "build.py")
assert SPEC and SPEC.loader
bundle: Any = importlib.util.module_from_spec(SPEC)
sys.modules["bundle"] = bundle  # dataclasses look their module up
SPEC.loader.exec_module(bundle)

PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "small"
version = "1"
dependencies = ["tqdm", "numpy"]
[tool.setuptools]
py-modules = ["small"]
"""
needs_shell = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A course of one module with two of the real pins: the whole is gigabytes."""
    root = tmp_path / "small course"
    for folder in (".git", ".venv", "build", "runs", "data/cache", "data/small"):
        (root / folder).mkdir(parents=True)
        (root / folder / "file.txt").write_text(folder, encoding="utf-8")
    shutil.copy(ROOT / ".gitignore", root)
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    few = [line for line in pins if line.startswith(("tqdm==", "numpy=="))]
    assert len(few) == 2
    (root / "requirements.txt").write_text("\n".join(few), encoding="utf-8")
    (root / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (root / "small.py").write_text("import numpy, tqdm\nprint('it works')\n", encoding="utf-8")
    return root


@pytest.fixture
def no_pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of a download one wheel of 1.5 MB; returns pip's commands."""
    commands: list[list[str]] = []

    def download(command: list[str]) -> None:
        commands.append(command)
        place = Path(command[command.index("--dest") + 1])
        (place / "torch-2-py3-none-any.whl").write_bytes(bytes(1_500_000))

    monkeypatch.setattr(bundle, "run_pip", download)
    return commands


def test_what_is_in_it(root: Path, tmp_path: Path, no_pip: list[list[str]]) -> None:
    out = tmp_path / "bundle"
    (out / "left from before").mkdir(parents=True)
    bundle.build(out, ["windows", "macos"], ["3.11", "3.12"], root)
    names = {"README.md", "course", "wheels", "install.sh", "install.cmd"}
    assert {path.name for path in out.iterdir()} == names
    course = out / "course"
    files = {path.relative_to(course).as_posix() for path in course.rglob("*") if path.is_file()}
    assert files == {
        *(".gitignore", "requirements.txt", "pyproject.toml", "small.py", "data/small/file.txt")
    }
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert "For Windows (x86-64) or macOS (Apple silicon), with Python 3.11 or 3.12" in readme
    assert "| wheels/, files: 1 | 1.5 MB |" in readme and "@" not in readme
    assert b"'3.11 3.12'.split())\"\r\n" in (out / "install.cmd").read_bytes()
    assert b"\r" not in (out / "install.sh").read_bytes()
    assert "    .\\install.cmd  " in readme, "PowerShell starts nothing of this folder without .\\"
    assert b"Python is missing: install Python 3.11 3.12 from" in (out / "install.cmd").read_bytes()
    assert len(no_pip) == 4


def test_pip_is_told_about_the_other_system(root: Path) -> None:
    command = bundle.pip_download(root, root, "windows", "3.12")
    assert {"--platform=win_amd64", "--python-version=3.12", "setuptools>=77"} <= set(command)
    assert '"sys_platform": "win32"' in command[3] and '"python_version": "3.12"' in command[3]
    here = bundle.pip_download(root, root, "", bundle.HERE)
    assert here[1:4] == ["-m", "pip", "download"]
    assert not [word for word in here if word.startswith("--platform")]
    newer = bundle.pip_download(root, root, "", "3.99")
    tags = bundle.SYSTEMS[bundle.this_system()].tags
    assert {f"--platform={tag}" for tag in tags} | {"--python-version=3.99"} <= set(newer)


@needs_shell
def test_another_python_is_refused_in_a_sentence(
    root: Path, tmp_path: Path, no_pip: list[list[str]]
) -> None:
    bundle.build(tmp_path / "bundle", [""], ["3.99"], root)
    script = ["sh", str(tmp_path / "bundle" / "install.sh"), sys.executable]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 2
    assert "The wheels are for Python 3.99, and" in done.stderr
    assert not (tmp_path / "bundle" / "course" / ".venv").exists()


def with_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """For pip's downloads alone: processes are no longer refused connections."""
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [folder for folder in before if Path(folder).name != "offline"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(kept))


def built(out: Path, system: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        with_network(patch)
        try:
            bundle.build(out, [system], [bundle.HERE], root)
        except subprocess.CalledProcessError:
            pytest.skip("pip can't download wheels here")


@pytest.mark.slow
@needs_shell
def test_it_installs_without_a_network(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    built(out, "", root, monkeypatch)
    script = ["sh", str(out / "install.sh"), sys.executable]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    python, away = out / "course" / ".venv" / "bin" / "python", {"cwd": tmp_path}
    ran = subprocess.run([python, "-m", "small"], capture_output=True, text=True, **away)
    assert ran.stdout == "it works\n", ran.stderr
    assert (out / "course" / ".venv" / "ready").exists()


@pytest.mark.slow
@pytest.mark.parametrize("system", ["windows", "macos", "linux"])
def test_wheels_are_those_of_the_system(
    system: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tqdm asks for colorama on Windows alone; numpy has a wheel for each system."""
    built(tmp_path / "bundle", system, root, monkeypatch)
    names = {path.name.split("-")[0]: path.name for path in tmp_path.glob("bundle/wheels/*")}
    assert ("colorama" in names) == (system == "windows")
    mark = {"windows": "-win_amd64", "macos": "-macosx_", "linux": "manylinux"}[system]
    assert mark in names["numpy"]


def test_a_learners_copy_can_be_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = handout.write(tmp_path / "handout", "learner")
    monkeypatch.setattr(bundle, "run_pip", lambda command: None)
    bundle.build(tmp_path / "bundle", [""], [bundle.HERE], learner)
    there = {path.name for path in (tmp_path / "bundle" / "course").iterdir()}
    assert {"course_lib", "notebooks", "data", "pyproject.toml", "requirements.txt"} <= there
    assert not (tmp_path / "bundle" / "course" / "docs" / "teaching.md").exists()
