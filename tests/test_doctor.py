from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from course_lib import doctor, machine
from course_lib.__main__ import main
from course_lib.doctor import OK, PACKAGES, PROBLEM, WARNING
from course_lib.training import pick_device

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GOOD = {"broken": {}, "threads": 4, "devices": {}}
VERSIONS = {"torch": "2.15.0", "torchvision": "0.30.0"}
LOWEST = {"torch": "2.11", "torchvision": "0.26"}


def requirements(lines: list[str]) -> dict[str, str]:
    """Package → the version after >=."""
    items = [Requirement(line) for line in lines]
    return {item.name: str(item.specifier).removeprefix(">=") for item in items}


def test_the_packages_are_the_projects() -> None:
    assert set(PACKAGES) == set(requirements(PROJECT["dependencies"]))
    assert set(doctor.LAB_PACKAGES) == set(requirements(PROJECT["optional-dependencies"]["lab"]))


def test_the_lower_bounds_are_the_projects() -> None:
    extras = PROJECT["optional-dependencies"].values()
    every = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    assert machine.lower_bounds() == requirements(every)


@pytest.mark.parametrize(
    ("version", "verdict"),
    [((3, 10, 14), PROBLEM), ((3, 11, 0), OK), ((3, 13, 7), OK), ((3, 14, 0), WARNING)],
)
def test_python(version, verdict) -> None:
    check = doctor.check_python(version)
    assert check.verdict == verdict and (verdict == OK) == (check.fix == "")


def test_another_python_than_the_courses_is_told_first(tmp_path, monkeypatch) -> None:
    assert doctor.check_environment(tmp_path) == []
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    command = f"use {machine.quoted([str(python), '-m', 'course_lib', 'doctor'])}"
    what = "This is /usr/bin/python3; the course is installed in .venv"
    assert doctor.check_environment(tmp_path) == [
        doctor.Check("environment", WARNING, what, command)
    ]
    monkeypatch.chdir(tmp_path)
    python = Path(".venv", "bin", "python")
    assert doctor.check_environment(tmp_path)[0].fix == f"use {python} -m course_lib doctor"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert doctor.check_environment(tmp_path) == []


def test_the_environment_is_looked_at_first(monkeypatch) -> None:
    first = doctor.Check("environment", WARNING, "another")
    monkeypatch.setattr(doctor, "check_environment", lambda checkout: [first])
    monkeypatch.setattr(machine, "probe", lambda names: {"crash": "not looked"})
    assert doctor.examine()[0] == first


@pytest.mark.parametrize(
    ("versions", "found", "name", "words"),
    [
        ({"torch": None}, {"broken": {"torch": "ModuleNotFoundError"}}, "torch", "not installed"),
        ({"torch": None}, {"crash": "it ended"}, "torch", "not installed"),
        ({"torch": "2.9.1+cu128"}, GOOD, "torch", "older than 2.11"),
        ({}, {"broken": {"torch": "OSError: no\nlibc"}}, "torch", "imported (OSError: no libc)"),
        ({}, {"broken": {"torchvision": "it doesn't fit"}}, "torchvision", "it doesn't fit"),
        ({}, {"crash": "Python ended"}, "packages", "Python ended"),
    ],
)
def test_a_broken_package_is_a_problem_with_its_mend(versions, found, name, words) -> None:
    (check,) = doctor.check_packages({**VERSIONS, **versions}, LOWEST, found)
    assert (check.name, check.verdict) == (name, PROBLEM)
    assert words in check.what and "make setup" in check.fix


@pytest.mark.parametrize("version", ["2.11", "2.11.0+cpu", "2.15.0", "3.0", None])
def test_packages_in_order(version) -> None:
    checks = doctor.check_packages({**VERSIONS, "torch": version}, LOWEST, GOOD)
    assert [check.verdict for check in checks] == [OK]


def test_missing_notebooks_are_a_warning() -> None:
    lab = {"jupyterlab": None, "ipywidgets": "8.1.0"}
    found = {**GOOD, "broken": {"jupyterlab": "ModuleNotFoundError"}}
    (check,) = doctor.check_lab(lab, {}, found)
    assert (check.name, check.verdict) == ("jupyterlab", WARNING) and "make setup" in check.fix
    (check,) = doctor.check_lab({"jupyterlab": "4.5", "ipywidgets": "8.1.0"}, {}, GOOD)
    assert check.verdict == OK


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (GOOD, OK, "CPU with 4 threads; --device auto takes cpu"),
        ({**GOOD, "devices": {"mps": ""}}, OK, "Apple's MPS; --device auto takes mps"),
        (
            {**GOOD, "devices": {"cuda": ""}, "cuda": ["H100", 60e9, 80e9]},
            OK,
            "CUDA (H100, 60.0 of 80.0 GB free); --device auto takes cuda",
        ),
        ({**GOOD, "devices": {"cuda": "no kernel image"}}, PROBLEM, "no kernel image"),
        ({"broken": {"torch": "ImportError"}}, WARNING, "until PyTorch can be imported"),
        ({"crash": "it ended"}, WARNING, "until PyTorch can be imported"),
    ],
)
def test_devices(found, verdict, words) -> None:
    check = doctor.check_devices(found)
    assert check.verdict == verdict and words in check.what
    assert ("--device cpu" in check.fix) == (verdict == PROBLEM)


@pytest.mark.parametrize("look", [doctor.check_memory, lambda m: doctor.check_disk("disk", m, "x")])
def test_memory_and_disk(look) -> None:
    def given(amount: float) -> tuple[str, bool]:
        check = look((amount, "free") if look is doctor.check_memory else amount)
        return check.verdict, bool(check.fix)

    assert given(0.2e9) == (PROBLEM, True)
    assert given(2e9) == (WARNING, True)
    assert given(50e9) == (OK, False)
    assert look(None).verdict in (OK, WARNING)


def test_memory_is_told_here() -> None:
    told = machine.free_memory()
    assert sys.platform == "win32" or (told is not None and 1e8 < told[0] < 1e14)


def test_folders(tmp_path) -> None:
    assert doctor.check_folder("cache", tmp_path / "not" / "yet", "fix").verdict == OK
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    check = doctor.check_folder("cache", tmp_path / "file" / "cache", "name another")
    assert (check.verdict, check.fix) == (PROBLEM, "name another")


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may write anywhere",
)
def test_a_folder_without_permission(tmp_path) -> None:
    tmp_path.chmod(0o500)
    assert doctor.check_folder("cache", tmp_path, "fix").verdict == PROBLEM


def test_the_cache(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNING_RESNETS_CACHE", str(tmp_path / "file"))
    assert doctor.check_cache(GOOD)[0].verdict == PROBLEM
    assert "PRUNING_RESNETS_CACHE" in doctor.check_cache(GOOD)[0].fix
    monkeypatch.setenv("PRUNING_RESNETS_CACHE", str(tmp_path / "new"))
    assert doctor.check_cache(GOOD)[0].verdict == OK
    for broken in ({"crash": "x"}, {"broken": {"numpy": "x"}}):
        assert [check.verdict for check in doctor.check_cache(broken)] == [WARNING]


def test_status_and_last_line(monkeypatch, capsys) -> None:
    fine, bad = doctor.Check("a", OK, "x"), doctor.Check("long name", PROBLEM, "x\ny", "fix it")
    for checks, status in (([fine], 0), ([fine, bad], 2)):
        monkeypatch.setattr(doctor, "examine", lambda checks=checks: checks)
        assert main(["doctor"]) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a  ok       x", "All that a run needs is here."]
    assert lines[3] == "long name  problem  x y: fix it"
    assert lines[4].startswith("1 problem to fix")


# ---- broken installations, in processes of their own


@pytest.fixture
def stubs(tmp_path, monkeypatch) -> Path:
    """A folder whose packages come before those that are installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is missing')")
    return tmp_path


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd)


def test_the_probe_names_what_is_broken(stubs) -> None:
    assert machine.probe(["torch", "json"]) == {
        "broken": {"torch": "ImportError: libtorch is missing"}
    }


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os._exit(3)", "status 3"),
        ("import os; os.abort()", "Python ended"),
        ("import time; time.sleep(60)", "over 1 seconds"),
    ],
)
def test_the_probe_outlives_what_it_tries(stubs, program, words) -> None:
    (stubs / "torch.py").write_text(program)
    assert words in machine.probe(["torch"], seconds=1.0 if "sleep" in program else 60)["crash"]


def test_doctor_works_where_torch_does_not(stubs) -> None:
    done = python("-m", "course_lib", "doctor", cwd=stubs)
    assert done.returncode == 2 and done.stderr == "", done.stderr
    (line,) = re.findall(r"^torch +problem .*$", done.stdout, re.MULTILINE)
    assert "ImportError: libtorch is missing" in line and "make setup" in line
    assert re.search(r"^devices +warning", done.stdout, re.MULTILINE)


def test_a_run_where_torch_does_not_work_points_to_the_doctor(stubs) -> None:
    done = python("-m", "course_lib", "run", "--out", str(stubs / "out"), cwd=stubs)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("course_lib: torch can't be imported (ImportError: libtorch")
    assert "doctor" in done.stderr and not (stubs / "out").exists()


def test_help_and_wrong_options_need_no_torch(stubs) -> None:
    assert python("-m", "course_lib", "run", "--help").returncode == 0
    done = python("-m", "course_lib", "run", "--out", str(stubs / "out"), "--fraction", "2")
    assert done.returncode == 2
    assert done.stderr == "course_lib: --fraction can't be 2.0: it must be less than 1.\n"


def test_the_command_line_is_imported_without_packages() -> None:
    names = [*PACKAGES.values(), *doctor.LAB_PACKAGES.values()]
    program = f"import sys, course_lib.__main__; print({names!r} & sys.modules.keys())"
    assert python("-c", program.replace("[", "{").replace("]", "}")).stdout == "set()\n"


def test_doctor_on_this_machine() -> None:
    done = python("-m", "course_lib", "doctor")
    assert done.returncode == (2 if " problem " in done.stdout else 0), done.stdout
    assert done.stderr == ""
    assert f"torch {torch.__version__.split('+')[0]}" in done.stdout
    assert f"--device auto takes {pick_device().type}" in done.stdout
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    expected = {"python", "packages", "devices", "memory", "cache", "this folder"}
    expected |= {"cache's disk", "folder's disk"}
    assert expected <= set(names)


def test_the_command_to_go_on_can_be_typed(monkeypatch, tmp_path) -> None:
    told = machine.quoted([sys.executable, "-c", "import sys; print(sys.argv[1])", "a b'c"])
    done = subprocess.run(told, shell=True, capture_output=True, text=True)
    assert done.stdout == "a b'c\n"
    monkeypatch.chdir(tmp_path)
    named = machine.python_command()
    assert named == "python" or Path(named).samefile(sys.executable)
    assert json.loads(json.dumps(named))
