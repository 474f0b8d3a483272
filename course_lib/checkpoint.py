"""The state of a run, and the files it is written to.

`checkpoint.pt` is the only truth: every other file of a run is written again from it. Each file is
written under a temporary name, brought to the disk, and renamed, so that at every moment it is
either the old one or the new one, whole.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from course_lib import distributed
from course_lib.config import Config
from course_lib.errors import CourseError
from course_lib.pruning.surgery import as_laid_out
from course_lib.resnet import ResNet, ResNetConfig, saved_form
from course_lib.training import make_optimizer, make_schedule, place

FORMAT = 2


@dataclass
class State:
    """Where a run stands: what it has, which phase it is in, and how far."""

    config: Config
    network: ResNet
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    round: int = 0  # 0 while the full network is trained
    attempt: int = 0  # how many fine-tunings of this round have failed
    batch: int = 0  # batches done in this phase
    batches: int = 0  # batches done in all
    seconds: float = 0.0
    val_accuracy_pruned: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    full: dict[str, Any] | None = None  # the full network when trained, as saved_form gives it
    passed: dict[str, Any] | None = None  # the last network that passed the gate
    images: dict[str, Any] | None = None  # what it is trained on: Data.fingerprint()
    finished: bool = False

    @property
    def phase(self) -> str:
        """The name of the phase, which every random draw in it depends on."""
        if self.round == 0:
            return "base"
        return f"round {self.round}" + (f", try {self.attempt + 1}" if self.attempt else "")

    @property
    def last(self) -> bool:
        """Whether no round comes after this one, since it takes the batches saved for the last."""
        return self.round == self.config.rounds or self.attempt > self.config.retries

    @property
    def tries_left(self) -> bool:
        """Whether the round is fine-tuned once more if it fails."""
        with_saved = self.config.final_batches > 0 and self.round < self.config.rounds
        return self.attempt < self.config.retries + with_saved

    @property
    def phase_batches(self) -> int:
        """How many batches the phase has."""
        if self.round == 0:
            return self.config.batches
        return self.config.finetune_batches + (self.config.final_batches if self.last else 0)

    @property
    def expected_batches(self) -> int:
        """How many batches the run has in all, if what is left of it passes."""
        if self.finished:
            return self.batches
        known = self.batches - self.batch + self.phase_batches
        to_come = 0 if self.last else self.config.rounds - self.round
        more = self.config.final_batches if to_come else 0
        return known + to_come * self.config.finetune_batches + more


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under a temporary name and rename it, so that nobody ever meets half of it."""
    aside = path.with_name(f".{path.name}.part")  # what a killed process left is written over
    try:
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:
        reason = _why_not_written(error)
        if reason is None:
            raise
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise CourseError(
            f"{path} can't be written ({reason}): free some space or choose another folder."
        ) from error


def _why_not_written(error: BaseException) -> str | None:
    """What the system said when a write failed, or None for an error of another kind.

    torch.save turns it into a RuntimeError: then it stands in the context, or in words only.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
        return "not all of it was taken"
    return None


def write_text(path: Path, text: str) -> None:
    """The text as a whole file, UTF-8."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def save(state: State, out: Path) -> None:
    """Write the checkpoint."""
    write_whole(out / "checkpoint.pt", partial(write, state))


def write_files(state: State, out: Path, *, full: bool) -> None:
    """Write what people read, from what the checkpoint holds.

    `full`: the full network too, which stays the same from the end of round 0.
    """
    write_lines(out / "history.jsonl", state.history)
    write_lines(out / "curve.jsonl", state.curve)
    if state.passed is not None:
        write_whole(out / "network.pt", partial(torch.save, state.passed))
    if full and state.full is not None:
        write_whole(out / "full.pt", partial(torch.save, state.full))


def write(state: State, file: IO[bytes]) -> None:
    """Write the state as a checkpoint has it: plain tensors, numbers and strings only."""
    saved = {
        "format": FORMAT,
        "config": state.config.to_dict(),
        "network": saved_form(state.network),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        **{name: getattr(state, name) for name in PLAIN_FIELDS},
    }
    torch.save(saved, file)


PLAIN_FIELDS = (
    *("round", "attempt", "batch", "batches", "seconds", "val_accuracy_pruned"),
    *("history", "curve", "full", "passed", "images", "finished"),
)


def load(out: Path, config: Config, device: torch.device) -> State | None:
    """The state in a run's checkpoint, or None if it was stopped before its first one.

    Raises CourseError for a checkpoint that is damaged, or was written by another version or for a
    run with other options.
    """
    path = out / "checkpoint.pt"
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as parts:  # PyTorch would take changed numbers for right ones
            if parts.testzip() is not None:
                raise zipfile.BadZipFile
        return read(path, config, device)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # not the file's fault
    except Exception as error:
        raise CourseError(
            f"{path} is damaged or not a checkpoint of this version and run "
            f"({_why_not_loaded(error)}): start again in another --out."
        ) from error


def read(file: Path | IO[bytes], config: Config, device: torch.device) -> State:
    """The state that `write` wrote. Raises nearly anything for a file that is something else."""
    with warnings.catch_warnings(action="ignore"):  # a file that isn't ours: the error says enough
        saved = torch.load(file, weights_only=True, map_location="cpu")
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        there = saved.get("format") if isinstance(saved, dict) else type(saved).__name__
        raise ValueError(f"format {there}, not {FORMAT}")
    different = config.differences(Config(**saved["config"]))
    if different:
        raise ValueError(f"config.json has {'; '.join(different)}")
    state = new_state(config, ResNetConfig.from_dict(saved["network"]["config"]), device)
    state.network.load_state_dict(saved["network"]["state_dict"])
    for name in PLAIN_FIELDS:
        setattr(state, name, saved[name])
    start_cycle(state)
    state.optimizer.load_state_dict(saved["optimizer"])
    for parameter, kept in state.optimizer.state.items():  # another device may order it otherwise
        for key, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                kept[key] = as_laid_out(value, parameter.detach())
    state.schedule.load_state_dict(saved["schedule"])
    return state


def from_first(make: Callable[[], State], config: Config, device: torch.device) -> State:
    """The state that the first process makes, in every process; it travels as a checkpoint.

    So scores, plans, verdicts and a batch norm's running statistics, for which every process has
    seen other images, are the first one's.
    """
    if distributed.world() == 1:
        return make()

    def packed() -> bytes:
        file = io.BytesIO()
        write(make(), file)
        return file.getvalue()

    return read(io.BytesIO(distributed.on_first(packed)), config, device)


def _why_not_loaded(error: Exception) -> str:
    if isinstance(error, (zipfile.BadZipFile, pickle.UnpicklingError)):
        # PyTorch's own words propose to load it in a way that would run a program hidden in it.
        return "it isn't whole or holds more than tensors, numbers and texts"
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


def new_state(config: Config, start: ResNetConfig | ResNet, device: torch.device) -> State:
    """A network at the start of its training: one of these widths, initialised from the seed, or a
    copy of this one.
    """
    if isinstance(start, ResNet):
        network = copy.deepcopy(start)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = ResNet(start)
    placed = place(network, device)
    optimizer = make_optimizer(placed, config.rate, config.momentum, config.weight_decay)
    state = State(config, placed, optimizer, schedule=None)  # type: ignore[arg-type]
    start_cycle(state)
    return state


def trained_state(config: Config, network: ResNet, device: torch.device) -> State:
    """The state of a run whose full network is there already, at the end of its training.

    Saved in a folder, it lets `iterate(…, resume=True)` go on there with the check of this network
    and the first round. `config.batches` says how many batches the network has been trained for.
    """
    state = new_state(config, network, device)
    state.batch = state.batches = config.batches
    return state


def start_cycle(state: State) -> None:
    """Begin the phase's cycle of the learning rate."""
    peak = state.config.rate if state.round == 0 else state.config.finetune_rate
    batches = max(1, state.phase_batches)  # a cycle of none can't be made, and isn't used
    state.schedule = make_schedule(state.optimizer, peak, batches, state.config.warm_up)
