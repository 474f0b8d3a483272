"""The files of the top level agree with each other, and the README tells the truth about them."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from PIL import Image

from course_lib import vehicles

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PIN = re.compile(r"^(?P<name>[\w-]+)==(?P<version>[\w.]+)  +# (?P<reason>\S.*)$")

needs_make = pytest.mark.skipif(
    sys.platform == "win32" or not shutil.which("make"), reason="needs make and a POSIX shell"
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


def ranges() -> dict[str, SpecifierSet]:
    """Every direct dependency in pyproject.toml, the extras' included, with its range."""
    extras = project()["optional-dependencies"]
    lines = [*project()["dependencies"], *(line for extra in extras.values() for line in extra)]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(item.name): item.specifier for item in requirements}


def pins() -> dict[str, str]:
    """Name → version in requirements.txt; a line that isn't a pin with its reason is an error."""
    lines = [line for line in read("requirements.txt").splitlines() if line and line[0] != "#"]
    matches = [PIN.match(line) for line in lines]
    wrong = [line for line, match in zip(lines, matches, strict=True) if not match]
    assert wrong == [], "each line is name==version, two blanks, # and the reason"
    return {canonicalize_name(m["name"]): m["version"] for m in matches if m}


def targets() -> set[str]:
    found = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))
    return found - {"with-tests"}  # which others need; nobody gives it


# ---- versions


def test_pins_and_ranges_name_the_same_packages() -> None:
    assert sorted(pins()) == sorted(ranges())


def test_every_pin_lies_in_its_range() -> None:
    outside = {n: v for n, v in pins().items() if not ranges()[n].contains(v, prereleases=True)}
    assert outside == {}


def test_the_ranges_start_where_the_library_is_promised_to_work() -> None:
    assert not ranges()["torch"].contains("2.10.0")
    assert ranges()["torch"].contains("2.11.0")
    assert ranges()["torchvision"].contains("0.26.0")
    assert project()["requires-python"] == ">=3.11"


def test_conda_environment_gets_the_pins_from_requirements() -> None:
    environment = yaml.safe_load(read("environment.yml"))
    *conda, pip = environment["dependencies"]
    assert conda == ["python>=3.11,<3.14", "pip"]
    assert pip == {"pip": ["-r requirements.txt", "-e ."]}
    python = SpecifierSet(conda[0].removeprefix("python"))
    promised = SpecifierSet(project()["requires-python"])
    for minor in (11, 12, 13):
        assert python.contains(f"3.{minor}") and promised.contains(f"3.{minor}")
    assert not python.contains("3.10") and not promised.contains("3.10")
    assert environment["name"] == project()["name"]


def test_the_library_imports_only_what_it_declares() -> None:
    """Most names are imported as they are installed. What only notebooks use may need JupyterLab's
    packages: nothing else imports it, and a run on a server does without. So it is with export."""
    names = {"PIL": "pillow", "IPython": "ipython"}
    needed, extras = project()["dependencies"], project()["optional-dependencies"]
    more = {"lessons": extras["lab"], "widgets": extras["lab"], "export": extras["export"]}
    for path in (ROOT / "course_lib").rglob("*.py"):
        place = path.relative_to(ROOT / "course_lib").with_suffix("").parts[0]
        allowed = [*needed, *more.get(place, [])]
        declared = {canonicalize_name(Requirement(entry).name) for entry in allowed}
        used = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                used.add(node.module.split(".")[0])
        packages = {names.get(name, name) for name in used}
        assert packages - set(sys.stdlib_module_names) - {"course_lib"} <= declared, path


# ---- citation, licences


def test_citation_is_whole_and_credits_the_article() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == project()["version"]
    assert citation["authors"] == project()["authors"]
    (article,) = citation["references"]
    assert article["title"] == "Pruning ResNets for Fun and Profit"
    (author,) = article["authors"]
    assert (author["given-names"], author["family-names"]) == ("Travis", "Johnston")
    readme = read("README.md")
    assert article["title"] in readme and "Travis Johnston" in readme


def test_both_licences_are_there_and_packaged() -> None:
    assert read("LICENSE").startswith("MIT License")
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in read("LICENSE-text")
    assert sorted(project()["license-files"]) == ["LICENSE", "LICENSE-text"]


# ---- documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_make_commands_in_the_text_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    shell = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^make ([a-z-]+)", shell, re.M)
    assert set(named) <= targets()


def test_readme_names_the_two_commands_and_both_ways_without_make() -> None:
    readme = read("README.md")
    for command in ("make run", "make test", "pip install -r requirements.txt -e .", "conda env"):
        assert command in readme


def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", read("README.md"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:  # each goes on from the one before
        exec(compile(block, "README.md", "exec"), names)
    again, narrow = names["again"].eval(), names["narrow"].eval()
    assert torch.equal(again(names["images"]), narrow(names["images"]))
    assert names["parameters"](narrow) <= names["parameters"](names["network"]) / 4
    assert narrow.conv1.out_channels == 64 and narrow.layer4[1].conv1.out_channels == 512
    assert {id(p) for p in names["optimizer"].param_groups[0]["params"]} == {
        id(p) for p in narrow.parameters()
    }


def test_a_photograph_is_named_as_the_readme_says(tmp_path: Path, monkeypatch, capsys) -> None:
    text = read("README.md")
    (block,) = re.findall(r"^```python no-run\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "runs" / "laptop").mkdir(parents=True)
    shutil.copy(ROOT / "data" / "small" / "pruned.pt", tmp_path / "runs" / "laptop" / "network.pt")
    image, label = vehicles.draw(0, "test", 0, size=96)
    Image.fromarray(image).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert re.fullmatch(rf"{vehicles.CLASSES[label]} \d+%\n", capsys.readouterr().out)


def test_the_glossary_is_in_order_and_the_notebooks_it_names_have_its_words() -> None:
    rows = re.findall(r"^\| (.+?) \| .+ \| \[\d\d\]\((.+?)\) \|$", read("docs/glossary.md"), re.M)
    words = [word for word, _ in rows]
    assert len(words) > 60 and words == sorted(words, key=str.lower)
    for word, link in rows:
        cells = json.loads((ROOT / "docs" / link).read_text(encoding="utf-8"))["cells"]
        text = " ".join("".join(cell["source"]) for cell in cells).lower()
        assert word.lower().removesuffix("s") in text, f"{word} isn't in {link}"


def test_readme_has_one_marked_place_for_measured_figures() -> None:
    readme = read("README.md")
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    assert readme.count(begin) == readme.count(end) == 1
    assert readme.index(begin) < readme.index(end)


# ---- make and .ci/run


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that set-up reads, beside a python3 that only writes down how it was called."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tests").mkdir()
    stub(tmp_path / "python3", version_check=0)
    return tmp_path


def stub(path: Path, version_check: int) -> None:
    """A python that logs its arguments; `-m venv DIR` puts a copy of it into DIR/bin.

    It can't install anything while there is a file called no-network.
    """
    path.write_text(
        "#!/bin/sh\n"
        "for word; do case $word in *' '*) word=\"'$word'\";; esac; line=\"$line $word\"; done\n"
        'echo "${line# }" >>calls\n'
        'case "$1 $2" in\n'
        '"-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;\n'
        f'"-c import"*) exit {version_check};;\n'
        '"-m pip") [ "$3" != install ] || [ ! -e no-network ] || exit 1;;\n'
        '"--version "*) echo Python 3.9.1;;\n'
        "esac\n",
        encoding="utf-8",
    )
    path.chmod(0o755)


def make(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run make, and give back what it said and the calls of python that matter."""
    (folder / "calls").unlink(missing_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "PYTHON=./python3", *arguments],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
    )
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return done, [call for call in calls if "pip --version" not in call and call[:2] != "-c"]


INSTALL = "-m pip install --disable-pip-version-check -r requirements.txt -e ."
RUN = "-m course_lib run --preset laptop --data generated --out runs/laptop"


@needs_make
def test_make_sets_up_once_and_starts_at_once_after_that(copy: Path) -> None:
    done, calls = make(copy, "run")
    assert done.returncode == 0, done.stderr
    assert calls == ["-m venv .venv", INSTALL, RUN]
    assert make(copy, "run")[1] == [RUN]
    ready = (copy / ".venv" / "ready").stat().st_mtime
    os.utime(copy / "requirements.txt", (ready + 5, ready + 5))
    assert make(copy, "setup")[1] == [INSTALL]


@needs_make
def test_make_run_goes_on_with_a_run_that_was_begun(copy: Path) -> None:
    make(copy, "setup")
    (copy / "runs" / "laptop").mkdir(parents=True)
    assert make(copy, "run")[1] == [RUN]
    (copy / "runs" / "laptop" / "config.json").write_text("{}")
    assert make(copy, "run")[1] == [f"{RUN} --resume"]
    other = RUN.replace("runs/laptop", "runs/other")
    assert make(copy, "run", "OUT=runs/other", "ARGS=--seed 1")[1] == [f"{other} --seed 1"]


@needs_make
def test_make_run_takes_a_folder_with_a_space_in_its_name(copy: Path) -> None:
    make(copy, "setup")
    expected = "-m course_lib run --preset photos --data '~/my photos' --out runs/photos"
    assert make(copy, "run", "DATA=~/my photos")[1] == [expected]


@needs_make
def test_make_without_a_python_new_enough_says_what_to_do(copy: Path) -> None:
    stub(copy / "python3", version_check=1)
    done, calls = make(copy, "test")
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13, and ./python3 is Python 3.9.1" in done.stderr
    assert "make test PYTHON=python3.12" in done.stderr
    assert calls == ["--version"]
    assert not (copy / ".venv").exists()


@needs_make
def test_a_failed_installation_is_tried_again(copy: Path) -> None:
    (copy / "no-network").touch()
    done, calls = make(copy, "run")
    assert done.returncode != 0
    assert calls == ["-m venv .venv", INSTALL]
    (copy / "no-network").unlink()
    assert make(copy, "run")[1] == [INSTALL, RUN]


@needs_make
def test_help_is_the_default_and_lists_every_target() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+)", listed, re.MULTILINE)) == targets()


@needs_make
def test_a_copy_without_tests_says_so(copy: Path) -> None:
    (copy / "tests").rmdir()
    listed = make(copy, "help")[0].stdout
    for target in ("test", "test-all", "notebooks", "handout"):
        done, calls = make(copy, target)
        assert done.returncode == 2 and calls == []
        assert done.stderr.startswith("This copy has no tests.\n")
        assert f"  make {target} " not in listed
    assert "  make lab " in listed and "  make bundle " in listed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no executable bit")
def test_ci_run_is_executable_bash_that_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert re.search(r"^set -euo pipefail$", text, re.MULTILINE)
    assert re.search(r"^make test$", text, re.MULTILINE)
