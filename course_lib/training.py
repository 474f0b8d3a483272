"""Batches, training and checking, each a function of what is given and nothing else.

Every random draw is a function of (seed, phase, batch index), so a run that was interrupted draws
what it would have drawn.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.answers import share_right
from course_lib.config import DEVICES, PRECISIONS
from course_lib.data import Data, Split
from course_lib.distillation import distance, soft_targets
from course_lib.errors import CourseError
from course_lib.pruning.tracing import evaluating

Batch = tuple[Tensor, Tensor]


def pick_device(name: str = "auto") -> torch.device:
    """CUDA, then Apple's MPS, then the CPU; or the one that is asked for. The environment variable
    COURSE_DEVICE says what "auto" means instead. Raises CourseError if it isn't there.
    """
    if name == "auto":
        name = os.environ.get("COURSE_DEVICE", "auto")
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if name not in there:
        raise CourseError(f"There is no device {name!r}: choose one of {', '.join(DEVICES)}.")
    if not there[name]:
        raise CourseError(f"This machine has no {name} device for PyTorch: use --device cpu.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """The type for autocast: bfloat16 where a GPU computes in it, float32 elsewhere, or the one
    that is asked for.
    """
    if name not in PRECISIONS:
        raise CourseError(f"There is no precision {name!r}: choose one of {', '.join(PRECISIONS)}.")
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device, its weights in the order in memory that suits it."""
    return network.to(device, memory_format=layout(device))  # type: ignore[call-overload]


def layout(device: torch.device) -> torch.memory_format:
    """Channels-last, which convolutions on CPU and CUDA are fastest with; not on MPS, where batch
    norm's gradients are wrong with it: https://github.com/pytorch/pytorch/issues/175189.
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def generator(seed: int, *where: str | int) -> torch.Generator:
    """A random generator of its own for each (seed, phase, batch index, …)."""
    words = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in where]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass(frozen=True)
class Augmentation:
    """How far a training image may be moved: mirrored with probability ½, shifted, zoomed (shares
    of its size).
    """

    flip: bool = True
    shift: float = 0.1
    zoom: float = 0.15

    def __call__(
        self, images: Tensor, random: torch.Generator, rank: int = 0, world: int = 1
    ) -> Tensor:
        """Move every image [N, C, H, W] by its own draw; what comes in at the edges is a
        reflection. The images are share `rank` of `world` equal shares of a batch, and move as
        they would in the whole.
        """
        draws = torch.rand(len(images) * world, 4, generator=random)[rank::world] * 2 - 1
        scale = 1 + self.zoom * draws[:, 0]
        mirror = torch.sign(draws[:, 1]) if self.flip else torch.ones(len(images))
        zero = torch.zeros(len(images))
        # Twice the share, since affine_grid's coordinates run from −1 to 1.
        rows = [
            torch.stack([scale * mirror, zero, 2 * self.shift * draws[:, 2]], 1),
            torch.stack([zero, scale, 2 * self.shift * draws[:, 3]], 1),
        ]
        matrices = torch.stack(rows, 1).to(images.device)
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        edge = "reflection"
        if images.device.type == "mps":  # which can't reflect
            grid, edge = reflected(grid, images.shape[-2:]), "zeros"
        moved = F.grid_sample(images, grid, padding_mode=edge, align_corners=False)
        return moved.contiguous(memory_format=layout(images.device))


def reflected(grid: Tensor, size: Sequence[int]) -> Tensor:
    """Places [N, H, W, 2] (x, y), up to an image's width outside of it, put inside as grid_sample
    does by padding_mode="reflection": mirrored at the edge, no nearer to it than a pixel's centre.
    """
    inside = 1 - 1 / torch.tensor(size[::-1], device=grid.device)
    mirrored = grid.sign() * (1 - (1 - grid.abs()).abs())
    return mirrored.clamp(-inside, inside)


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, phase: str, epoch: int) -> Tensor:
    return torch.randperm(size, generator=generator(seed, phase, epoch))


class Loader:
    """Batches of a data set as the network takes them: float, standardised, [N, C, H, W], on the
    device.
    """

    def __init__(
        self,
        data: Data,
        device: torch.device,
        *,
        batch_size: int = 64,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.device, self.batch_size, self.seed = device, batch_size, seed
        self.rank, self.world = rank, world
        self.augmentation = augmentation
        self.splits = {
            name: _tensors(getattr(data, name), device) for name in ("train", "val", "test")
        }
        channels = (1, -1, 1, 1)
        self.mean = torch.tensor(data.mean, device=device).view(channels) * 255
        self.scale = 1 / (torch.tensor(data.std, device=device).view(channels) * 255)

    def training_batch(self, phase: str, batch: int) -> Batch:
        """Batch number `batch` of a phase of training, or this process's share of it; every image
        at most once per epoch (what fills no batch is left out), each epoch in its own order.
        """
        size = len(self.splits["train"][1])
        per_epoch = max(1, size // self.batch_size)
        epoch, place_in_epoch = divmod(batch, per_epoch)
        order = _permutation(size, self.seed, phase, epoch)
        chosen = order[place_in_epoch * self.batch_size : (place_in_epoch + 1) * self.batch_size]
        images, labels = self._fetch("train", chosen[self.rank :: self.world])
        if self.augmentation is not None:
            draws = generator(self.seed, phase, "augmentation", batch)
            images = self.augmentation(images, draws, self.rank, self.world)
        return images, labels

    def training_batches(self, phase: str, start: int, stop: int) -> Iterator[Batch]:
        """Batches `start` to `stop` of a phase of training."""
        return (self.training_batch(phase, batch) for batch in range(start, stop))

    def batches(self, split: str, limit: int | None = None) -> Iterator[Batch]:
        """A split in its own order, without augmentation; `limit`: only its first images."""
        chosen = torch.arange(len(self.splits[split][1]))[:limit]
        for part in chosen.split(self.batch_size):
            yield self._fetch(split, part)

    def sample(self, count: int) -> Iterator[Batch]:
        """`count` training images, or all, without augmentation: drawn by the seed, so always the
        same, and of all classes however the split is ordered.
        """
        chosen = _permutation(len(self.splits["train"][1]), self.seed, "sample", 0)[:count]
        for part in chosen.split(self.batch_size):
            yield self._fetch("train", part)

    def _fetch(self, split: str, chosen: Tensor) -> Batch:
        images, labels = self.splits[split]
        chosen = chosen.to(images.device)
        pixels = images[chosen].to(self.device).permute(0, 3, 1, 2).float()
        images = pixels.sub_(self.mean).mul_(self.scale)  # a copy already: no second one
        return images.contiguous(memory_format=layout(self.device)), labels[chosen].to(self.device)


def _tensors(split: Split, device: torch.device) -> Batch:
    """A split as tensors: on the GPU if it takes less than a quarter of the memory free there, else
    where it is.
    """
    # PyTorch wants memory it may write to; a copy-on-write memory map satisfies it without being
    # read into memory.
    images = torch.from_numpy(np.require(split.images, requirements="W"))
    labels = torch.from_numpy(np.array(split.labels, dtype=np.int64))
    if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
        return images.to(device), labels.to(device)
    return images, labels


def make_optimizer(
    network: nn.Module, rate: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum (PyTorch's)."""
    parameters = list(network.parameters())
    return torch.optim.SGD(
        parameters,
        rate,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=True,
        fused=parameters[0].device.type in ("cpu", "cuda"),  # one pass over memory instead of five
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, peak: float, batches: int, warm_up: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """One cycle of the learning rate: up to `peak` over a share `warm_up` of the batches, then down
    to nothing.

    Smith & Topin 2017, "Super-Convergence", arXiv 1708.07120, as PyTorch implements it; momentum
    stays as it is.
    """
    for group in optimizer.param_groups:
        group.pop("initial_lr", None)  # a carried optimiser remembers its last cycle
    steps = max(2, batches)  # a cycle of one would be its end alone, and the rate there is nothing
    if warm_up * steps == 1:  # PyTorch would divide by a rise of no length
        warm_up *= 1 + 1e-9
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=warm_up, cycle_momentum=False
    )


def train(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batches: Iterable[Batch],
    *,
    precision: torch.dtype = torch.float32,
    label_smoothing: float = 0.0,
    teacher: nn.Module | None = None,
    distill: float = 0.9,
) -> Iterator[Tensor]:
    """Train on each batch in turn and hand out its loss, so that the caller can watch, save or stop
    in between.

    With a `teacher`, the share `distill` of the loss is how far the network's answers are from the
    teacher's, and the rest how far they are from the labels.
    """
    for images, labels in batches:
        network.train()  # inside the loop: the caller may have checked the network in between
        with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
            logits = network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
            if teacher is not None:
                loss = torch.lerp(loss, distance(logits, soft_targets(teacher, images)), distill)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.detach()


def one_cycle(
    network: nn.Module,
    batches: Iterable[Batch],
    count: int,
    peak: float,
    *,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warm_up: float = 0.2,
    label_smoothing: float = 0.0,
    teacher: nn.Module | None = None,
) -> Iterator[Tensor]:
    """As `train`: `count` batches, a new optimiser, one cycle of the learning rate up to `peak`."""
    optimizer = make_optimizer(network, peak, momentum, weight_decay)
    schedule = make_schedule(optimizer, peak, count, warm_up)
    return train(
        network, optimizer, schedule, batches, label_smoothing=label_smoothing, teacher=teacher
    )


@torch.inference_mode()
def predict(
    network: nn.Module, batches: Iterable[Batch], precision: torch.dtype = torch.float32
) -> Batch:
    """Logits [N, classes] and labels [N] over all batches, on the CPU; every layer's mode is left
    as it was.
    """
    logits, labels = [], []
    with evaluating(network):
        for images, truth in batches:
            with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
                logits.append(network(images).float().cpu())
            labels.append(truth.cpu())
    return torch.cat(logits), torch.cat(labels)


def accuracy(network: nn.Module, batches: Iterable[Batch]) -> float:
    """The share of images whose largest logit is the right class."""
    logits, labels = predict(network, batches)
    return share_right(labels, logits.argmax(1))
