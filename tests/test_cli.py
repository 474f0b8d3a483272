from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile

import pytest
from command_line import QUICK, course, refused
from filelock import FileLock

from course_lib.__main__ import main
from course_lib.config import PRESETS, Config, make_config
from course_lib.errors import CourseError


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "new" / "run"
    assert main(["run", "--preset", "smoke", *QUICK, "--out", str(out)]) == 0
    return out


def test_a_run_leaves_every_file(done):
    assert {path.name for path in done.iterdir() if path.name != ".lock"} == {
        *("config.json", "checkpoint.pt", "history.jsonl", "curve.jsonl", "full.pt", "network.pt"),
        *("summary.json", "report.html", "accuracy.png", "size.png", "throughput.png"),
    }


def test_a_finished_run_is_reported_again_at_once(done, capsys):
    before = {path.name: path.read_bytes() for path in done.glob("*.json*")}
    status, output, _ = course(capsys, "run", "--out", done, "--resume", "--quiet")
    assert status == 0 and "test accuracy" in output
    assert {path.name: path.read_bytes() for path in done.glob("*.json*")} == before


def test_another_runs_results_are_not_overwritten(done, capsys):
    before = {path.name: path.read_bytes() for path in done.iterdir()}
    status, _, error = course(capsys, "run", "--preset", "smoke", *QUICK, "--out", done)
    assert status == 2 and "--resume" in error and error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in done.iterdir()} == before


def test_resuming_with_other_options_says_which(done, capsys):
    status, _, error = course(
        capsys, "run", "--out", done, "--resume", "--rounds", "3", "--seed", "4"
    )
    assert status == 2
    assert "rounds: 3, not 1" in error and "seed: 4, not 0" in error and "batches" not in error


def test_resuming_with_the_same_options_is_fine(done, capsys):
    same = ["run", "--out", done, "--resume", "--preset", "smoke", *QUICK]
    assert course(capsys, *same)[0] == 0


def test_resuming_nothing(tmp_path, capsys):
    status, _, error = course(capsys, "run", "--out", tmp_path / "none", "--resume")
    assert status == 2 and "Nothing was begun" in error
    assert not (tmp_path / "none").exists()


def test_home_is_found_where_no_shell_does_it(tmp_path, capsys, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    status, _, error = course(capsys, "run", "--out=~/none", "--resume")
    assert status == 2 and str(tmp_path / "none") in error


def test_resuming_where_only_the_config_was_written_starts_over(tmp_path, capsys):
    config = make_config("smoke", batches=2, rounds=0, base_width=4, val_images=16, test_images=16)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert course(capsys, "run", "--out", tmp_path, "--resume", "--quiet")[0] == 0
    assert (tmp_path / "summary.json").exists()


def test_a_folder_in_use_is_refused(done, capsys):
    with FileLock(done / ".lock"):
        status, _, error = course(capsys, "run", "--out", done, "--resume")
    assert status == 2 and "Another process" in error


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", "half", "a start", "a bit"])
def test_a_damaged_checkpoint_is_named(done, tmp_path, capsys, damage):
    for name in ("config.json", "checkpoint.pt"):
        (tmp_path / name).write_bytes((done / name).read_bytes())
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "checkpoint.pt") as file:
        weight = file.read(max(file.infolist(), key=lambda entry: entry.file_size))
    middle = whole.index(weight) + len(weight) // 2  # not in what fills up between two
    damaged = {
        "half": whole[:middle],
        "a start": whole[:20_000],
        "a bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    (tmp_path / "checkpoint.pt").write_bytes(damaged.get(damage, damage))
    status, _, error = course(capsys, "run", "--out", tmp_path, "--resume")
    assert status == 2 and "checkpoint.pt is damaged" in error and "(it isn't whole" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--fraction", "1.5", "--fraction can't be 1.5: it must be less than 1"),
        ("--fraction", "nan", "--fraction can't be nan: give a finite number"),
        ("--rounds", "-1", "--rounds can't be -1: it must be at least 0"),
        ("--batches", "0", "--batches can't be 0"),
        ("--cap", "0", "--cap can't be 0.0: it must be more than 0"),
        ("--criterion", "l7", "invalid choice: 'l7'"),
        ("--scope", "galaxy", "invalid choice: 'galaxy'"),
        ("--depth", "19", "invalid choice: 19"),
        ("--rate", "fast", "invalid float value: 'fast'"),
        ("--preset", "huge", "invalid choice: 'huge'"),
        ("--device", "tpu", "invalid choice: 'tpu'"),
        ("--data", "no/such/folder", "no/such/folder"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, capsys, option, value, words):
    status, _, error = course(capsys, "run", "--out", tmp_path / "run", option, value)
    assert status == 2 and words in error and "Traceback" not in error


def test_the_corrected_command_is_not_refused(tmp_path, capsys):
    run = ["run", "--preset", "smoke", *QUICK, "--out", tmp_path]
    assert course(capsys, *run, "--data", tmp_path / "nowhere")[0] == 2
    assert course(capsys, *run)[0] == 0


def test_presets_are_what_the_readme_says():
    assert set(PRESETS) == {"smoke", "laptop", "one-cut", "photos", "paper"}
    paper = PRESETS["paper"]
    assert (paper.batches, paper.finetune_batches, paper.fraction) == (40_000, 8_000, 0.05)
    with pytest.raises(CourseError, match="huge"):
        make_config("huge")
    assert Config(**json.loads(json.dumps(PRESETS["smoke"].to_dict()))) == PRESETS["smoke"]


def test_photographs_get_their_own_preset_unless_one_is_named(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("course_lib.run.make_config", lambda *a, **k: seen.append(a[0]) or 1 / 0)
    for options, preset in (
        ([], "laptop"),
        (["--data", "generated"], "laptop"),
        (["--data", "pictures"], "photos"),
        (["--data", "pictures", "--preset", "laptop"], "laptop"),
    ):
        with pytest.raises(ZeroDivisionError):
            main(["run", *options, "--out", str(tmp_path / "run")])
        assert seen.pop() == preset
    photos, laptop = PRESETS["photos"].to_dict(), PRESETS["laptop"].to_dict()
    changed = {name: photos[name] for name in photos if photos[name] != laptop[name]}
    rounds = {"rounds": 4, "fraction": 0.19, "finetune_batches": 400, "finetune_rate": 0.1}
    rounds |= {"final_batches": 0, "distill": 0.9}
    assert changed == {"batches": 1800, "label_smoothing": 0.1, **rounds}
    tuned = [p["rounds"] * p["finetune_batches"] + p["final_batches"] for p in (photos, laptop)]
    assert tuned == [1600, 800]


def test_the_smoke_preset_is_quick(tmp_path):
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "course_lib", "run", "--preset", "smoke", "--out", tmp_path / "run"],
        check=True,
    )
    # 30 s is the goal on two quiet cores; the tests share them.
    assert time.monotonic() - start < 90


def test_progress_is_shown_for_each_notebook(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", "on")
    monkeypatch.setattr("course_lib.lessons.progress.path", lambda: tmp_path / "progress.json")
    assert course(capsys, "progress")[1].split()[:7] == [
        "00",
        "start",
        "here",
        "□□",
        "0",
        "of",
        "2",
    ]
    (tmp_path / "progress.json").write_text('{"00.1": "passed"}')
    status, output, error = course(capsys, "progress")
    assert (status, error) == (0, "")
    assert " ".join(output.split()[:7]) == "00 start here ■□ 1 of 2"


def test_progress_without_ipython_names_what_is_missing(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    error = refused(capsys, "IPython can't be imported", "progress")
    assert "python -m course_lib doctor" in error
