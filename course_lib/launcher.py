"""What PyTorch's launcher, torchrun, tells the processes that it starts. The standard library only,
so that a wrong option is answered before PyTorch is imported.
"""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType

from course_lib.errors import CourseError

# How many seconds the others wait for the first process to say what is wrong; it may be starting.
PATIENCE = 60.0
# How long the first waits for them to listen to the launcher, in seconds as well.
HEAD_START = 1.0


class Ended(SystemExit):
    """The launcher ends this process, since the first one has said what is wrong."""


def processes() -> int:
    """How many processes the launcher started, on all machines; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def here() -> int:
    """How many of them are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if processes() > 1 else 1


def first_here() -> bool:
    """Whether this process is the first one on its machine."""
    return processes() == 1 or os.environ["LOCAL_RANK"] == "0"


def arguments() -> list[str] | None:
    """What stands between `python` and `-m course_lib` to start as many processes again.

    None for several machines, which aren't known here.
    """
    if processes() == 1:
        return []
    if processes() > here():
        return None
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(here())]


@contextmanager
def said_once() -> Iterator[None]:
    """Around what fails alike in all processes of a machine: the first there says why, alone.

    The others are silent and wait for the launcher to end them, as it does when one has failed:
    if one of them were the first to end, the sentence might never be said. All end with status 2.
    """
    if first_here():
        try:
            yield
        except (CourseError, SystemExit) as error:
            if processes() > 1 and _failed(error):
                time.sleep(HEAD_START)
            raise
        return
    signal.signal(signal.SIGTERM, _end)  # until distributed.join, also between two such blocks
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    except Ended:
        raise
    except (CourseError, SystemExit) as error:
        if _failed(error):
            time.sleep(PATIENCE)
        raise


def _failed(error: CourseError | SystemExit) -> bool:
    return isinstance(error, CourseError) or bool(error.code)  # none after --help


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(2)
