"""Arrays on disk that are built once, aside, and then mapped into memory by every later start.

A folder in the cache is either complete or absent: it is built under another name and renamed.
Only one process builds it; the others wait. A process that was killed leaves at most the other
name behind, which the next builder removes.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout

from course_lib.errors import CourseError

ENVIRONMENT_VARIABLE = "PRUNING_RESNETS_CACHE"
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # the disk, or one's share of it
T = TypeVar("T")


def default_cache() -> Path:
    """Return the cache folder: the environment's choice, the checkout's, or the platform's."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    checkout = Path(__file__).resolve().parent.parent.parent
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        return checkout / "data" / "cache"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pruning-resnets"


class RowWriter:
    """Appends rows to a .npy file whose number of rows is known only at the end.

    Written as a file rather than through a memory map, so that a full disk is an error that can
    be caught (a map ends the process with a bus error) and memory use stays flat.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self.rows = 0
        self._row_shape = row_shape
        self._file = open(path, "wb")  # noqa: SIM115 (closed by __exit__)
        self._file.write(self._header())

    def append(self, rows: np.ndarray) -> None:
        """Append uint8 [N, *row_shape]."""
        if rows.dtype != np.uint8 or rows.shape[1:] != self._row_shape:
            raise ValueError(
                f"expected uint8 [N, {self._row_shape}], not {rows.dtype} {rows.shape}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._file.write(self._header())
                self._file.flush()
                os.fsync(self._file.fileno())  # or a power cut could leave a renamed, empty file

    def _header(self) -> bytes:
        """The .npy header: numpy pads it so that its length doesn't depend on the row count."""
        buffer = io.BytesIO()
        shape = (self.rows, *self._row_shape)
        description = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, description)
        return buffer.getvalue()


def built_once(
    target: Path,
    opened: Callable[[Path], T],
    build: Callable[[Path], None],
    *,
    family: str,
    needs: int,
    progress: bool = True,
) -> T:
    """Open the folder `target`, after building it where it is missing or damaged.

    `opened` reads a complete folder; `build` fills an empty one. Folders of one `family` (a name)
    share a lock and the name they are built under. `needs` is the room to build one, in bytes.
    Raises CourseError where the cache can't be written.
    """
    found = _try_open(target, opened)
    if found is not None:
        return found
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / f"{family}.lock", progress):
            found = _try_open(target, opened)  # perhaps built while this process waited
            if found is None:
                shutil.rmtree(target, ignore_errors=True)
                _build_aside(target, target.parent / f"{family}.building", build, needs)
                found = opened(target)
            return found
    except OSError as error:
        room = "make room or " if error.errno in FULL else ""
        raise CourseError(
            f"The cache folder {target.parent} could not be written"
            f" ({error.strerror or error}): {room}name another folder"
            f" with the environment variable {ENVIRONMENT_VARIABLE}."
        ) from error


def locked(path: Path, progress: bool = True) -> AcquireReturnProxy:
    """Acquire the lock at `path`; leaving the with statement releases it.

    The operating system holds it and lets go when its holder ends, however that ends. A file that
    merely exists would outlive a killed process, and a process number in it may be reused.
    """
    lock = FileLock(path)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        if progress:
            print("Waiting for another process that prepares the same data.", file=sys.stderr)
        return lock.acquire(poll_interval=0.1)


def _try_open(target: Path, opened: Callable[[Path], T]) -> T | None:
    try:
        return opened(target)
    except (OSError, EOFError, ValueError, KeyError):
        return None  # missing, or damaged by somebody else: build it again


def _build_aside(target: Path, aside: Path, build: Callable[[Path], None], needs: int) -> None:
    shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed
    free = shutil.disk_usage(target.parent).free
    if free < needs:
        lacking = f"{needs / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free"
        raise OSError(errno.ENOSPC, lacking)
    aside.mkdir()
    try:
        build(aside)
        os.rename(aside, target)
    except BaseException:  # Ctrl-C as well
        shutil.rmtree(aside, ignore_errors=True)
        raise
