"""A run that is killed or interrupted, at random moments or inside a write, ends as one that was
not.
"""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

# The smoke preset with checkpoints closer together, so that ten kills come before the end.
OPTIONS = [
    *("--preset", "smoke", "--batches", "36", "--finetune-batches", "8", "--batch-size", "32"),
    *("--train-images", "512", "--val-images", "256", "--test-images", "256"),
    *("--checkpoint-every", "3", "--curve-every", "4", "--quiet"),
]

# Runs the command line in a process that kills itself with SIGKILL at one write of a checkpoint:
# halfway through the file, before it is renamed, or right after.
DIES = """
import os, signal, sys
from course_lib import checkpoint
from course_lib.__main__ import main

moment, number, calls = sys.argv[1], int(sys.argv[2]), 0
save, replace, write = checkpoint.torch.save, checkpoint.os.replace, checkpoint.write_whole

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def counted(path):
    global calls
    calls += str(path).endswith("checkpoint.pt")
    return calls == number and str(path).endswith("checkpoint.pt")

def write_whole(path, writer):
    if not counted(path):
        return write(path, writer)
    def half(file):
        import io
        whole = io.BytesIO()
        writer(whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        die()
    def before(source, target):
        die()
    def after(source, target):
        replace(source, target)
        die()
    if moment == "inside":
        return write(path, half)
    checkpoint.os.replace = {"before": before, "after": after}[moment]
    return write(path, writer)

checkpoint.write_whole = write_whole
sys.exit(main(sys.argv[3:]))
"""


def command(out: Path, resume: bool) -> list[str]:
    begun = ["--resume"] if resume else []
    return ["run", *OPTIONS, "--out", str(out), *begun]


def results(out: Path) -> dict:
    """Everything that must be equal: weights of the last network that passed, history, curve."""
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    times = ("seconds", "images_per_second")
    return {
        "history": [{k: v for k, v in line.items() if k not in times} for line in history],
        "curve": (out / "curve.jsonl").read_text(),
        "full": torch.load(out / "full.pt", weights_only=True)["state_dict"],
        "network": torch.load(out / "network.pt", weights_only=True)["state_dict"],
        "test": json.loads((out / "summary.json").read_text())["final"]["test_accuracy"],
    }


def assert_equal(mine: dict, other: dict) -> None:
    for name in ("full", "network"):
        assert mine[name].keys() == other[name].keys()
        differ = [key for key in other[name] if not torch.equal(mine[name][key], other[name][key])]
        assert not differ, f"{name}: {differ}"
    for name in ("history", "curve", "test"):
        assert mine[name] == other[name], name


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("undisturbed")
    done = subprocess.run([sys.executable, "-m", "course_lib", *command(out, resume=False)])
    assert done.returncode == 0
    return results(out)


def progress(out: Path) -> tuple[int, int]:
    """Something that changes with every checkpoint."""
    path = out / "checkpoint.pt"
    return (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else (0, 0)


def test_killed_ten_times_in_a_row_at_random_moments(undisturbed, tmp_path):
    moments = random.Random(20)
    kills = 0
    while kills < 10:
        resume = (tmp_path / "config.json").exists()
        process = subprocess.Popen(
            [sys.executable, "-m", "course_lib", *command(tmp_path, resume)],
            stdout=subprocess.DEVNULL,
        )
        before, started = progress(tmp_path), time.monotonic()
        # Some die while they start; the others wait for a first new checkpoint, so that the run
        # gets on.
        if moments.random() < 0.3:
            time.sleep(moments.uniform(0, 3))
        else:
            while progress(tmp_path) == before and process.poll() is None:
                assert time.monotonic() - started < 120, "no checkpoint in two minutes"
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.3))
        assert process.poll() is None, "the run must not be over before the tenth kill"
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    done = subprocess.run([sys.executable, "-m", "course_lib", *command(tmp_path, resume=True)])
    assert done.returncode == 0
    assert_equal(results(tmp_path), undisturbed)


@pytest.mark.parametrize("moment", ["inside", "before", "after"])
def test_dying_while_a_checkpoint_is_written(undisturbed, tmp_path, moment):
    for number in (1, 2):  # the first checkpoint there is, and one that replaces another
        begun = (tmp_path / "config.json").exists()
        died = subprocess.run(
            [sys.executable, "-c", DIES, moment, str(number), *command(tmp_path, begun)]
        )
        assert died.returncode == -signal.SIGKILL
        if (tmp_path / "checkpoint.pt").exists():
            torch.load(tmp_path / "checkpoint.pt", weights_only=True)  # whole
    done = subprocess.run([sys.executable, "-m", "course_lib", *command(tmp_path, resume=True)])
    assert done.returncode == 0
    assert_equal(results(tmp_path), undisturbed)
    assert not list(tmp_path.glob(".*.part")), "nothing is left lying about"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_interrupted_says_how_to_go_on_and_ends_as_if_it_never_was(
    undisturbed, tmp_path, number, status
):
    out = tmp_path / "a folder"  # the blank has to be quoted
    process = subprocess.Popen(
        [sys.executable, "-m", "course_lib", *command(out, resume=False)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background, Ctrl-C may be ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    started = time.monotonic()
    while not (out / "checkpoint.pt").exists():
        assert process.poll() is None and time.monotonic() - started < 120
        time.sleep(0.01)
    process.send_signal(number)
    asked = time.monotonic()
    error = process.communicate(timeout=60)[1]
    assert process.returncode == status, error
    assert time.monotonic() - asked < 20, "a batch and a write take well under a second"
    assert "Traceback" not in error and "What was reached is saved" in error
    torch.load(out / "checkpoint.pt", weights_only=True)  # whole
    (told,) = re.findall(r"^.* -m course_lib run .*--resume.*$", error, re.MULTILINE)
    python, *rest = shlex.split(told)
    assert rest[rest.index("--out") + 1] == str(out)
    done = subprocess.run([sys.executable if python == "python" else python, *rest])
    assert done.returncode == 0
    assert_equal(results(out), undisturbed)
