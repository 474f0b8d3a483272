"""Several processes that train one network together: PyTorch's launcher starts them, and its
DistributedDataParallel averages their gradients. Without the launcher nothing here does anything.

The first process alone reads, checks, decides and writes; the others train and take its state over.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from course_lib import interrupt, launcher
from course_lib.errors import CourseError
from course_lib.pruning import PruningError

# How long a process waits for one that is alive and silent: the first may decode a large folder
# meanwhile. One that has died is noticed at once, by the launcher.
PATIENCE = timedelta(hours=1)
T = TypeVar("T")


def join(device: torch.device) -> torch.device:
    """Meet the other processes that torchrun started, if there are any; return this one's device.

    Raises CourseError where there are fewer devices than processes.
    """
    if not dist.is_available() or launcher.processes() == 1:
        return device
    here, there = launcher.here(), torch.cuda.device_count()
    if device.type == "mps" or (device.type == "cuda" and here > there):
        count = there if device.type == "cuda" else 1
        raise CourseError(
            f"This machine has {count} {device.type} device{'s' * (count != 1)} for {here} "
            f"processes: use --nproc-per-node {count}, or --device cpu."
        )
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # So the launcher ends the others when one has died; each then says how to go on, as at Ctrl-C.
    signal.signal(signal.SIGTERM, interrupt.end)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return device


def leave() -> None:
    """Part from the other processes; every one of them calls it."""
    if world() > 1:
        dist.destroy_process_group()


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among them; 0 is the first, and one that is alone."""
    return dist.get_rank() if world() > 1 else 0


def wrap(network: nn.Module) -> nn.Module:
    """The network for training: backward leaves the mean of all processes' gradients in it."""
    return DistributedDataParallel(network) if world() > 1 else network


def on_first(action: Callable[[], T]) -> T:
    """What the action returns in the first process, which alone does it, for every process.

    An error that the user can fix is said once and ends them all with status 2.
    """
    if world() == 1:
        return action()
    answer: list[Any] = [None, True]
    if rank() == 0:
        try:
            answer = [action(), False]
        except (CourseError, PruningError) as error:
            # Before the others hear of it: the first that ends makes the launcher end the rest.
            print(f"course_lib: {error}", file=sys.stderr, flush=True)
    dist.broadcast_object_list(answer)
    value, refused = answer
    if refused:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # each ends by itself, with nothing to add
        leave()
        raise SystemExit(2)
    return value


def first_then_others(action: Callable[[], T]) -> T:
    """What the action returns; the others do it too, when the first has done it."""
    done: list[T] = []
    on_first(lambda: done.append(action()))
    return done[0] if done else action()


def check_shares(batch: int) -> None:
    """Raise CourseError unless a batch of so many images has equal shares for all processes.

    Gradients are averaged over processes, which is their mean over images only then; and batch norm
    needs two images.
    """
    if world() > 1 and (batch % world() or batch < 2 * world()):
        raise CourseError(
            f"A batch of {batch} images has no equal shares of at least 2 for {world()} processes: "
            f"choose a --batch-size that is a multiple of {world()}, {2 * world()} or more, and no "
            "more than the training images."
        )


def lost_another(error: BaseException) -> bool:
    """Whether an error says that another process is gone or silent."""
    if world() == 1 or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or "gloo" in str(error)
