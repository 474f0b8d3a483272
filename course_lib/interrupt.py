"""Ctrl-C and SIGTERM, held back while a batch is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from course_lib import launcher

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal; a second one means that somebody doesn't want to wait."""
        if self.signal is not None:
            raise KeyboardInterrupt(number)
        self.signal = number

    def raise_if_asked(self) -> None:
        """Raise KeyboardInterrupt, with the number of the signal, if one has come."""
        if self.signal is not None:
            raise KeyboardInterrupt(self.signal)


@contextmanager
def held() -> Iterator[Stop]:
    """Within it, a signal to stop is noted instead of raised, so that the code can choose where.

    One that has come is raised on leaving. Python delivers signals to the main thread alone, and a
    launcher of several processes ends them by its own rules: there this changes nothing.
    """
    stop = Stop()
    if not _ours():
        yield stop
        return
    # A signal that is ignored (nohup, a job in the background) stays ignored.
    before = {n: handler for n in SIGNALS if (handler := signal.getsignal(n)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop.note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    stop.raise_if_asked()


def raise_on_sigterm() -> None:
    """Make SIGTERM end the process as Ctrl-C does, so that what lies half done is tidied up."""
    if _ours():
        signal.signal(signal.SIGTERM, end)


def end(number: int, frame: FrameType | None) -> None:
    """A handler that ends the process as Ctrl-C does; the error knows the number of the signal."""
    raise KeyboardInterrupt(number)


def _ours() -> bool:
    """Whether signals come to this thread, and no launcher of several processes handles them."""
    return launcher.processes() == 1 and threading.current_thread() is threading.main_thread()
