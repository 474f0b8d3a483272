from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
import torch
from tiny import TINY, tiny_data

from course_lib import checkpoint
from course_lib.checkpoint import State
from course_lib.interrupt import held, raise_on_sigterm
from course_lib.iterate import iterate

CPU = torch.device("cpu")

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process there")
pytestmark = needs_signals


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Ctrl-C raises, as in a process in the foreground; all is put back afterwards."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def assert_same(resumed: State, undisturbed: State) -> None:
    mine, other = resumed.network.state_dict(), undisturbed.network.state_dict()
    assert mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)
    assert resumed.curve == undisturbed.curve
    accuracies = [[line["val_accuracy"] for line in s.history] for s in (resumed, undisturbed)]
    assert accuracies[0] == accuracies[1]


def ask(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_raised_on_leaving(number):
    reached = []
    with pytest.raises(KeyboardInterrupt) as caught, held() as stop:
        assert stop.signal is None
        ask(number)
        reached.append(stop.signal)
    assert reached == [number] and caught.value.args == (number,)


def test_handlers_are_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with held():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_does_not_wait():
    reached = []
    with pytest.raises(KeyboardInterrupt), held():
        ask()
        reached.append("after the first")
        ask()
        reached.append("after the second")
    assert reached == ["after the first"]


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held() as stop:
        ask()
        assert stop.signal is None


def test_another_error_comes_through():
    with pytest.raises(ZeroDivisionError), held():
        ask()
        raise ZeroDivisionError


def test_threads_and_launchers_keep_their_handlers(monkeypatch):
    seen = []

    def look() -> None:
        with held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    look()
    assert seen == [signal.default_int_handler] * 2
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")  # WORLD_SIZE alone: somebody else's, no torchrun
    look()
    assert seen[2] != signal.default_int_handler


def test_sigterm_raises_outside_too():
    raise_on_sigterm()
    with pytest.raises(KeyboardInterrupt) as caught:
        ask(signal.SIGTERM)
    assert caught.value.args == (signal.SIGTERM,)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> State:
    return iterate(TINY, tiny_data(), tmp_path_factory.mktemp("run"), CPU, progress=False)


# Before the last batch of base training, and between two checkpoints of a round.
@pytest.mark.parametrize("moment", [23, 31])
def test_the_batch_is_finished_and_saved(undisturbed, tmp_path, moment):
    def watch(state: State) -> None:
        if state.batches == moment:
            ask()

    with pytest.raises(KeyboardInterrupt):
        iterate(TINY, tiny_data(), tmp_path, CPU, progress=False, after_batch=watch)
    saved = checkpoint.load(tmp_path, TINY, CPU)
    assert saved is not None and saved.batches == moment + 1
    resumed = iterate(TINY, tiny_data(), tmp_path, CPU, progress=False, resume=True)
    assert_same(resumed, undisturbed)


# Of round 1, whose last checkpoint is a batch before its end.
@pytest.mark.parametrize("step", ["confusion", "config_of", "choose", "prune", "carry_optimizer"])
def test_in_a_check_or_surgery_no_training_is_lost(undisturbed, tmp_path, monkeypatch, step):
    original, calls = getattr(sys.modules["course_lib.iterate"], step), []

    def asking(*arguments, **options):
        calls.append(step)
        if len(calls) == 2:
            ask()
        return original(*arguments, **options)

    monkeypatch.setattr(f"course_lib.iterate.{step}", asking)
    with pytest.raises(KeyboardInterrupt):
        iterate(TINY, tiny_data(), tmp_path, CPU, progress=False)
    saved = checkpoint.load(tmp_path, TINY, CPU)
    assert saved is not None
    assert (saved.phase, saved.batch, saved.batches) == ("round 1", 6, 30)
    assert len(saved.history) == 1, "that round's line isn't written twice"
    assert_same(iterate(TINY, tiny_data(), tmp_path, CPU, progress=False, resume=True), undisturbed)


def test_what_surgery_came_to_is_written_whole(undisturbed, tmp_path, monkeypatch):
    save = checkpoint.save

    def asking(state: State, out) -> None:
        if (state.round, state.batch) == (2, 0):
            ask()
        save(state, out)

    monkeypatch.setattr(checkpoint, "save", asking)
    with pytest.raises(KeyboardInterrupt):
        iterate(TINY, tiny_data(), tmp_path, CPU, progress=False)
    saved = checkpoint.load(tmp_path, TINY, CPU)
    assert saved is not None and (saved.phase, saved.batch) == ("round 2", 0)
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 2
    assert_same(iterate(TINY, tiny_data(), tmp_path, CPU, progress=False, resume=True), undisturbed)
