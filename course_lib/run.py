"""A run of the command line: begin or resume it, report it, and say in a sentence what stops it."""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from course_lib import checkpoint, distributed, launcher, pretrained, report
from course_lib import data as data_sets
from course_lib.checks import as_begun
from course_lib.config import Config, default_preset, make_config
from course_lib.data import Data
from course_lib.errors import CourseError
from course_lib.images.layout import named
from course_lib.images.torchvision_sets import TORCHVISION_SETS
from course_lib.iterate import iterate
from course_lib.pruning import PruningError
from course_lib.training import pick_device

# Whatever of these lies in a folder, a run there would write over it.
RESULTS = (
    *("config.json", "checkpoint.pt", "history.jsonl", "curve.jsonl", "full.pt", "network.pt"),
    *("summary.json", "report.html", "accuracy.png", "size.png", "throughput.png"),
)
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def run(
    out: Path,
    preset: str | None = None,
    resume: bool = False,
    device: str = "auto",
    cache: Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> int:
    """Begin or resume a run and report it; return the exit status 0.

    Raises CourseError for all that a user can fix.
    """
    with launcher.said_once():
        place = distributed.join(pick_device(device))
    first = distributed.rank() == 0
    quiet = quiet or not first
    config = distributed.on_first(partial(_config, out, preset, resume, cache, options))
    with sentences(config, out), locked(out):
        if not resume:
            distributed.on_first(partial(begin, out, config))
        try:
            clock = time.perf_counter()
            load = partial(load_data, config, cache, progress=not quiet)
            network, data = None, distributed.first_then_others(load)
            begun = resume and distributed.on_first((out / "checkpoint.pt").exists)
            if not begun:  # else the checkpoint has what the file of --start gave
                network, data = pretrained.begin_with(config, data)
            data_seconds = time.perf_counter() - clock
            for line in () if quiet else (described(data), *data.notes):
                print(line)
            shown = not quiet
            state = iterate(
                config, data, out, place, network=network, resume=resume, progress=shown
            )
            distributed.leave()
        except (Exception, SystemExit) as error:
            # Nothing was reached, so the corrected command must not be refused. It is the same one,
            # with --resume, where another process was lost.
            mine = first and not resume and not distributed.lost_another(error)
            if mine and not (out / "checkpoint.pt").exists():
                with contextlib.suppress(OSError):
                    (out / "config.json").unlink()
            raise
        if not first:
            return 0
        summary = report.finish(state, as_begun(state, data), out, place, data_seconds=data_seconds)
    print(report.describe(summary))
    print(f"The report is {out / 'report.html'}; history and the network lie beside it.")
    return 0


def _config(
    out: Path, preset: str | None, resume: bool, cache: Path | None, options: dict[str, Any]
) -> Config:
    """The config of the run that is begun or resumed, when its folder has been looked at."""
    if resume:
        return resumed_config(out, preset, options)
    config = make_config(preset or default_preset(options.get("data")), **options)
    require_apart(config.data, out=out, cache=cache)
    if config.start is not None:  # before any image is decoded
        pretrained.read(config.start)
    require_free(out)
    return config


def require_free(out: Path) -> None:
    """Make the folder. Raises CourseError if it holds results or can't be made."""
    try:
        there = [name for name in RESULTS if (out / name).exists()]
        if not there:
            out.mkdir(parents=True, exist_ok=True)
            return
    except OSError as error:
        raise CourseError(
            f"{out} can't be made a folder for the results ({error.strerror}): "
            "choose another --out."
        ) from error
    if "config.json" in there or "checkpoint.pt" in there:
        raise CourseError(
            f"{out} holds the results of another run: add --resume to go on with it, "
            "or choose another --out."
        )
    raise CourseError(
        f"{out} holds {there[0]}, which a run would write over: choose another --out."
    )


def begin(out: Path, config: Config) -> None:
    """Write config.json first of all. Raises CourseError if somebody was faster or it can't be."""
    require_free(out)
    checkpoint.write_text(out / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")


def require_apart(data: str, **folders: Path | None) -> None:
    """Raise CourseError for a folder we write to that lies in the folder of images.

    Its figures would be taken for images the next time.
    """
    if data == "generated" or data in TORCHVISION_SETS:
        return
    with contextlib.suppress(OSError, RuntimeError):  # said where the data is loaded
        images = Path(data).expanduser().resolve()
        for name, folder in folders.items():
            if images.is_dir() and folder and folder.resolve().is_relative_to(images):
                raise CourseError(
                    f"--{name} {folder} lies in the folder of images {data}: "
                    f"choose an --{name} elsewhere."
                )


def resumed_config(out: Path, preset: str | None, options: dict[str, Any]) -> Config:
    """The config of the run in a folder. Raises CourseError if there is none or other options are
    asked for.
    """
    path = out / "config.json"
    try:
        config = Config(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        if (out / "checkpoint.pt").exists():
            raise CourseError(
                f"{path} is missing beside the checkpoint: "
                "put it back, or start again in another --out."
            ) from None
        raise CourseError(f"Nothing was begun in {out}: leave --resume away to begin.") from None
    except OSError as error:
        raise CourseError(f"{path} can't be read: {error.strerror}.") from error
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error).rstrip(".") if isinstance(error, CourseError) else "no options of a run"
        raise CourseError(
            f"{path} is damaged or of another version ({reason}): start again in another --out."
        ) from error
    base = make_config(preset).to_dict() if preset else config.to_dict()
    different = Config(**{**base, **options}).differences(config)
    if different:
        raise CourseError(
            f"The run in {out} had other options ({'; '.join(different)}): "
            "leave them away to resume it, or choose another --out."
        )
    return config


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes out of the folder. Raises CourseError if one is in it."""
    lock = FileLock(out / ".lock", timeout=0)

    def acquire() -> None:
        try:
            lock.acquire()
        except Timeout:
            raise CourseError(
                f"Another process is running in {out}: wait for it, or choose another --out."
            ) from None

    distributed.on_first(acquire)
    try:
        yield
    finally:
        lock.release()


def load_data(config: Config, cache: Path | None, progress: bool) -> Data:
    """The images of a run, noting where they are too few for its gate; a batch of them has a share
    for every process.
    """
    data = data_sets.load(
        config.data,
        image_size=config.image_size,
        seed=config.seed,
        cache=cache,
        train=config.train_images,
        val=config.val_images,
        test=config.test_images,
        progress=progress,
    )
    distributed.check_shares(min(config.batch_size, len(data.train.labels)))
    share = 1 / len(data.val.labels)
    if config.gate and config.rounds and 0 < config.tolerance < share:
        note = (
            f"val: one of the {len(data.val.labels)} images is {100 * share:.1f} points of accuracy"
            f" and the gate lets {100 * config.tolerance:.1f} pass, so luck decides:"
            " add images, or give a larger --tolerance."
        )
        data = replace(data, notes=(*data.notes, note))
    return data


def described(data: Data) -> str:
    """What was found, so that classes that aren't the meant ones show before hours of training."""
    train, val, test = (len(split.labels) for split in (data.train, data.val, data.test))
    return (
        f"{data.name}: {len(data.classes)} classes ({named(data.classes)}); {train:,} images for"
        f" training, {val:,} for validation, {test:,} for test; {data.train.images.shape[1]} pixels"
        " on a side."
    )


@contextlib.contextmanager
def sentences(config: Config, out: Path) -> Iterator[None]:
    """Turn what a user can fix, wherever it comes from, into a CourseError; leave our own bugs."""
    try:
        yield
    except PruningError as error:
        raise CourseError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and distributed.lost_another(error):
            resume = " and --resume" if (out / "config.json").exists() else ""
            raise CourseError(
                "Another process of this run has ended, so this one ends too: fix what it says, "
                f"if it says anything, and go on with the same command{resume}."
            ) from error
        if not is_out_of_memory(error):
            raise
        # One of several processes leaves the folder to the first, which keeps what was begun.
        kept = (out / "checkpoint.pt").exists() or distributed.rank() > 0
        begun = " in another --out" if kept else ""
        raise CourseError(
            f"Memory ran out with --batch-size {config.batch_size}: close other programs, "
            f"or start again{begun} with {less_memory(config)}."
        ) from error
    except OSError as error:
        # A file that isn't there would be our own mistake: users' files are looked for before.
        if error.errno in (None, errno.ENOENT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        raise CourseError(
            f"{where}{error.strerror}: fix that, or choose another folder."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; on a CPU or Apple's MPS, PyTorch says so in words only."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def less_memory(config: Config) -> str:
    """The options that take less memory."""
    if config.batch_size >= 4:
        return f"a smaller one, such as --batch-size {config.batch_size // 2}"
    return "a smaller --image-size or --base-width"
