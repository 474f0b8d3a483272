"""What is said by which of several processes; the launcher's part is played by its variables."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from command_line import course

from course_lib import launcher
from course_lib.__main__ import main
from course_lib.config import Config
from course_lib.errors import CourseError
from course_lib.run import sentences

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process there")


def place(monkeypatch, rank: int, here: int, processes: int) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    names = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": here, "WORLD_SIZE": processes}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def second(monkeypatch) -> Iterator[None]:
    """The second of two processes."""
    before = signal.getsignal(signal.SIGTERM)
    place(monkeypatch, rank=1, here=2, processes=2)
    yield
    signal.signal(signal.SIGTERM, before)


def end_soon() -> None:
    """What the launcher does when the first process has ended."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()


def test_who_is_the_first_here(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert launcher.first_here() and (launcher.processes(), launcher.here()) == (1, 1)
    place(monkeypatch, rank=0, here=2, processes=4)
    assert launcher.first_here() and (launcher.processes(), launcher.here()) == (4, 2)
    place(monkeypatch, rank=1, here=2, processes=4)
    assert not launcher.first_here()


@needs_signals
@pytest.mark.parametrize("option", [("--depth", "19"), ("--fraction", "2"), ("--device", "mps")])
def test_the_second_is_silent_and_ends_with_the_first(
    second, monkeypatch, tmp_path, capsys, option
):
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    end_soon()
    status, output, error = course(capsys, "run", "--out", tmp_path / "out", *option)
    assert (status, output, error) == (2, "", "")


@needs_signals
def test_the_second_speaks_when_the_first_says_nothing(second, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(launcher, "PATIENCE", 0.0)
    status, _, error = course(capsys, "run", "--out", tmp_path / "out", "--fraction", "2")
    assert status == 2 and "--fraction can't be 2.0" in error


def test_the_first_speaks_and_gives_the_others_time_to_listen(monkeypatch, tmp_path, capsys):
    place(monkeypatch, rank=0, here=2, processes=2)
    slept: list[float] = []
    monkeypatch.setattr("course_lib.launcher.time.sleep", slept.append)
    out = ("run", "--out", tmp_path / "out")
    assert "invalid choice: 19" in course(capsys, *out, "--depth", "19")[2]
    assert "--fraction can't be 2.0" in course(capsys, *out, "--fraction", "2")[2]
    assert course(capsys, "run", "--help")[0] == 0
    assert slept == [launcher.HEAD_START] * 2
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    assert course(capsys, *out, "--fraction", "2")[0] == 2 and len(slept) == 2, "alone, at once"


@needs_signals
def test_help_waits_for_nobody(second, capsys):
    assert course(capsys, "run", "--help")[0] == 0


@needs_signals
def test_an_end_before_an_error_is_silent_too(second, capsys):
    with pytest.raises(SystemExit) as ended, launcher.said_once():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 2 and capsys.readouterr().err == ""


TOLD = "-m torch.distributed.run --standalone --nproc-per-node 2 -m course_lib run --out"


@pytest.mark.parametrize(
    ("rank", "processes", "number", "words"),
    [
        (0, 2, signal.SIGINT, TOLD),
        (1, 2, signal.SIGINT, ""),
        (1, 2, signal.SIGTERM, TOLD),
        (0, 4, signal.SIGINT, "kept; go on with the same commands and --resume."),
    ],
)
def test_stopped_says_how_to_go_on(monkeypatch, tmp_path, capsys, rank, processes, number, words):
    for name in ("config.json", "checkpoint.pt"):
        (tmp_path / name).touch()
    place(monkeypatch, rank, 2, processes)

    def stopped(**options: object) -> int:
        raise KeyboardInterrupt(number)

    monkeypatch.setattr("course_lib.__main__._run", stopped)
    before = signal.getsignal(signal.SIGTERM)
    status = main(["run", "--out", str(tmp_path), "--device", "cpu"])
    signal.signal(signal.SIGTERM, before)
    error = capsys.readouterr().err
    assert status == 128 + number
    assert words in error and bool(words) == ("Stopped. The last checkpoint is kept" in error)
    if words == TOLD:
        assert error.endswith("--resume --device cpu\n")


@pytest.mark.parametrize("begun", [True, False])
def test_a_lost_process_is_told_to_resume_what_is_there(monkeypatch, tmp_path, begun):
    monkeypatch.setattr("course_lib.distributed.world", lambda: 2)
    if begun:
        (tmp_path / "config.json").touch()
    with pytest.raises(CourseError) as caught, sentences(Config(), tmp_path):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert ("--resume" in str(caught.value)) == begun
