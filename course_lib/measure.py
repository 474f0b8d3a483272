"""What a network costs, in parameters, bytes, multiply-accumulates and time; and an index of it."""

from __future__ import annotations

import copy
import io
import logging
import statistics
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from course_lib.pruning import Group
from course_lib.pruning.tracing import graph_of

# Importing the timer makes PyTorch warn about a CUDA compiler without a CUDA device, which is
# nothing to a learner.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
from torch.utils.benchmark import Timer  # noqa: E402


def count_parameters(network: nn.Module) -> int:
    """Learned numbers: weights and biases, without a batch norm's running statistics."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_bytes(network: nn.Module) -> int:
    """The size in bytes of a file with the network's state dict."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getbuffer().nbytes


def count_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates for one image [C, H, W]: half of what PyTorch's counter calls FLOPs.

    Of convolutions and linear layers; as usual, batch norm, activations and additions don't count.
    """
    return _counted(network, image_shape).get_total_flops() // 2


def _counted(network: nn.Module, image_shape: tuple[int, int, int]) -> FlopCounterMode:
    """PyTorch's counter after one image; nothing is computed, only shapes are worked out."""
    shapes_only = copy.deepcopy(network).to("meta", torch.float32).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes_only(torch.empty(1, *image_shape, device="meta", dtype=torch.float32))
    return counter


def layer_macs(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, float]:
    """Multiply-accumulates of each convolution and linear layer for one image [C, H, W]."""
    counts = _counted(network, image_shape).get_flop_counts()
    root = type(network).__name__
    return {
        name: sum(counts[f"{root}.{name}"].values()) / 2
        for name, layer in network.named_modules()
        if _has_filters(layer) and f"{root}.{name}" in counts
    }


def layer_milliseconds(
    network: nn.Module, images: Tensor, *, passes: int = 3, seconds: float = 0.02
) -> dict[str, float]:
    """Milliseconds that each convolution and linear layer takes for these images [N, C, H, W].

    Each layer is timed by itself, on an input of the shape and memory layout it gets; its time is
    the median of `passes` readings of at least `seconds`, taken in turn with the other layers'.
    """
    network = fold(network)
    layers = {name: layer for name, layer in network.named_modules() if _has_filters(layer)}
    calls: dict[str, Callable[[], Any]] = {}

    def keep(name: str, layer: nn.Module, read: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        calls[name] = partial(layer.forward, (*read, *named.values())[0].clone())

    for name, layer in layers.items():
        layer.register_forward_pre_hook(partial(keep, name), with_kwargs=True)
    with torch.inference_mode():
        network(images)
        readings = seconds_in_turn(calls, passes=passes, seconds=seconds)
    return {name: 1000 * statistics.median(mine) for name, mine in readings.items()}


def _has_filters(layer: nn.Module) -> bool:
    return isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))


def index_costs(groups: Mapping[str, Group], layers: Mapping[str, float]) -> dict[str, float]:
    """What one index of each group costs, from what each layer costs: the `cost` of `select`.

    `layers`: from `layer_macs` or `layer_milliseconds`. An index has its share of the layers that
    make its channels, of those that read them and of grouped ones in between. Of MACs this is
    exactly what removing it saves, unless one layer does both; of milliseconds it is a share, since
    time goes down in steps.
    """
    return {
        name: sum(map(layers.__getitem__, _layers_of(group))) / group.size
        for name, group in groups.items()
    }


def _layers_of(group: Group) -> list[str]:
    """The layers with weights that narrow when an index of the group goes."""
    return [*group.makers, *(name for name, _ in group.readers)]


def fold(network: nn.Module) -> nn.Module:
    """A copy for inference, its batch norms folded into the convolutions by PyTorch's own pass.

    A network that calls one of its layers twice, or reads its weights past it, is copied as it is:
    each call may have a batch norm of its own, and the pass would fold the first into both.
    """
    device = next(network.parameters()).device
    plain = copy.deepcopy(network).eval()
    folded: Any = fx.GraphModule(plain, graph_of(plain))
    calls = Counter(str(node.target) for node in folded.graph.nodes if node.op == "call_module")
    calls.update(str(n.target).rpartition(".")[0] for n in folded.graph.nodes if n.op == "get_attr")
    if all(n == 1 or not _has_filters(folded.get_submodule(name)) for name, n in calls.items()):
        folded = fuse(folded, inplace=True, no_trace=True)
    contiguous = device.type == "mps" or any(p.dim() > 4 for p in network.parameters())
    return folded if contiguous else folded.to(memory_format=torch.channels_last)


def images_per_second(
    networks: Mapping[str, nn.Module], images: Tensor, *, passes: int = 5, seconds: float = 0.2
) -> dict[str, list[float]]:
    """Time folded networks in turn: for each name, one reading per pass.

    The machine's speed drifts, so every pass times every network, there and back again; compare two
    networks by the median of their ratios within a pass. `seconds`: how long one reading takes at
    least.
    """
    with torch.inference_mode():
        folded = {name: fold(network) for name, network in networks.items()}
        calls = {name: partial(network, images) for name, network in folded.items()}
        readings = seconds_in_turn(calls, passes=passes, seconds=seconds)
    return {name: [len(images) / one for one in mine] for name, mine in readings.items()}


def seconds_in_turn(
    calls: Mapping[str, Callable[[], Any]], *, passes: int = 5, seconds: float = 0.2
) -> dict[str, list[float]]:
    """Seconds that one call takes: for each name, one reading per pass.

    Each call is warmed up, then every pass times every call, there and back again, so that a drift
    of the machine's speed hits all alike; PyTorch's timer waits for a GPU before it stops the
    clock. `seconds`: how long one reading takes at least, in as many calls as that needs.
    """
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
        for name, call in calls.items()
    }
    repeats = {}
    for name, timer in timers.items():
        timer.timeit(1)  # warm up
        repeats[name] = max(1, round(seconds / timer.timeit(2).mean))
    readings: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(passes):
        for name in list(timers) if number % 2 == 0 else reversed(timers):
            readings[name].append(timers[name].timeit(repeats[name]).mean)
    return readings


class _Live(TorchDispatchMode):
    """Adds up the tensors that operations make, until they are let go."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.now = self.most = 0
        self.live = {known.untyped_storage()._cdata}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and value.untyped_storage()._cdata not in self.live:
                storage = value.untyped_storage()
                self.live.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._let_go, storage._cdata, storage.nbytes())
        return made

    def _let_go(self, key: int, size: int) -> None:
        self.live.discard(key)
        self.now -= size


def activation_bytes(network: nn.Module, images: Tensor) -> int:
    """The most bytes of intermediate results that inference on these images holds at one time.

    Counted from PyTorch's own tensors, the images and the weights apart; what a library needs for
    itself inside of one operation isn't seen.
    """
    network = fold(network)
    with torch.inference_mode(), _Live(images) as counter:
        network(images)
    return counter.most


def speed_range(readings: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float]:
    """The lowest and the highest ratio of images per second to `base` within a pass."""
    ratios = [mine / theirs for mine, theirs in zip(readings[name], readings[base], strict=True)]
    return min(ratios), max(ratios)
