"""A network's graph by torch.fx, with the shape of every value, worked out without computing.

The network itself is traced, not a copy. Its weights have no part in it: on the meta device, where
tensors have a shape and no numbers, they are replaced by stand-ins, a layer at a time.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from .layers import KNOWN_LAYERS, NORMS, kind_of

SAME_SHAPE = {nn.Identity, nn.ReLU, torch.relu, F.relu}  # and batch norms


NOT_STRICT = " To prune the rest, give find_groups strict=False."
KNOWN = (
    "convolution (in groups where each makes as many channels as it reads), batch norm, "
    "elementwise activation, pooling, upsampling, padding, flatten, linear layer, and + − × ÷"
)


class PruningError(ValueError):
    """What can't be pruned; the message is one sentence that names it and says why."""


class NotTraceable(PruningError):
    """A network that torch.fx can't trace, or that doesn't run on an input of that shape."""


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside the `with`, the whole network is in evaluation mode; then each layer as it was."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def untouched(network: nn.Module) -> Iterator[None]:
    """Then every module has the attributes it had: what `forward` keeps, tensors that torch.fx puts
    there, modes.
    """
    before = [(module, dict(vars(module))) for module in network.modules()]
    try:
        for module, attributes in before:  # copies, in which `forward` may count
            own = attributes["_buffers"].items()
            vars(module)["_buffers"] = {k: None if b is None else b.clone() for k, b in own}
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)


def traced(network: nn.Module, example: Tensor) -> fx.Graph:
    """The graph of a network in evaluation mode; `meta["shape"]` of a node is the shape of its
    value, None if that isn't one tensor. The network is left as it was.

    Raises NotTraceable where it can't be traced, or run on an input of the example's shape.
    """
    if not isinstance(example, Tensor):
        raise PruningError("example must be one tensor, a batch of images [N, C, H, W].")
    try:
        with untouched(network), torch.no_grad():
            graph = graph_of(network.eval())
            _Shapes(network, graph=graph).run(example.to("meta"))
            _settle_numbers(graph)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        children = [name for name, _ in network.named_children()]
        if children in (["module"], ["_orig_mod"]):  # DataParallel, torch.compile, moving averages
            reason = f"it wraps a network, so give that one: its .{children[0]}"
        raise NotTraceable(
            f"{type(network).__name__} can't be traced with an input of shape "
            f"{tuple(example.shape)}: {reason}"
        ) from error
    return graph


def called_in_training(network: nn.Module) -> set[str]:
    """The layers, by name, that `forward` calls in training; all, where that can't be told."""
    with untouched(network):
        try:
            nodes = graph_of(network.train()).nodes
        except Exception:  # control flow that depends on the data, say
            return {name for name, _ in network.named_modules()}
        return {str(node.target) for node in nodes if node.op == "call_module"}


def graph_of(network: nn.Module) -> fx.Graph:
    """What `forward` does with its first argument, the others being what they are by default."""
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except Exception as error:
        where = next(reversed(tracer.module_stack), "")  # the module it stood in
        said = str(error).strip() or type(error).__name__
        raise PruningError(f"{where}: {said}" if where else said) from error
    for node in list(graph.nodes):
        call = _plain_call(node)
        if call is not None:
            with graph.inserting_before(node):
                same = graph.call_function(*call)
            same.meta = node.meta
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    _erase_unread(graph)  # what a view asked for
    return graph


def _erase_unread(graph: fx.Graph, numbers: Collection[fx.Node] = ()) -> None:
    """Erase what reads shapes, and of the `numbers`, what nothing reads any more."""
    for node in reversed(graph.nodes):
        reads = node.target in ("size", getattr, operator.getitem)
        if (reads or node in numbers) and not node.users:
            graph.erase_node(node)


class _Tracer(fx.Tracer):
    """Doesn't look into layers that are known, and gives each further argument its default, so that
    `if mask is not None` can be decided.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return kind_of(m) in KNOWN_LAYERS or super().is_leaf_module(m, module_qualified_name)

    def create_args_for_root(self, *args: Any, **kwargs: Any) -> tuple[Any, list[Any]]:
        forward, given = super().create_args_for_root(*args, **kwargs)
        for place, proxy in enumerate(given):
            if place > 1 and proxy.node.args:  # after the network and the images
                self.graph.erase_node(proxy.node)
                given[place] = proxy.node.args[0]
        return forward, given


def with_channels_of(x: Tensor, other: Tensor, positions: int) -> Tensor:
    """A value without positions, or of a single one, as [batch, channels of `other`, 1, …]."""
    return x.reshape(x.shape[0], other.shape[1], *[1] * positions)


def _plain_call(node: fx.Node) -> tuple[Any, tuple[Any, ...]] | None:
    """What a view does, as a function and its arguments: `x.view(n, -1)` flattens; `x.view(n, c)`
    and `x.view(n, c, 1, 1)`, as in squeeze-and-excitation, change no channel.
    """
    views = node.op == "call_method" and node.target in ("view", "reshape") and not node.kwargs
    if not views or len(node.args) < 3:
        return None
    x, first, second, *ones = node.args
    batch, channels = _extent(first), _extent(second)
    if batch is None or batch[0] != 0:
        return None
    if second == -1 and not ones:
        return torch.flatten, (x, 1)
    if channels is not None and channels[0] == 1 and all(one == 1 for one in ones):
        return with_channels_of, (x, channels[1], len(ones))
    return None


def _extent(node: Any) -> tuple[Any, fx.Node] | None:
    """Which extent (or slice of them) of which value a node is: of `x.size(0)`, `x.shape[0]` and
    `x.size()[0]` it is 0 and x.
    """
    if not isinstance(node, fx.Node):
        return None
    if node.target == "size":
        which = (*node.args[1:], *node.kwargs.values())
        return (which[0], node.all_input_nodes[0]) if which else None
    if node.target is operator.getitem:
        shape: Any = node.args[0]
        whole = shape.target == "size" and len(shape.args) == 1 and not shape.kwargs
        if whole or (shape.target is getattr and shape.args[1] == "shape"):
            return node.args[1], shape.all_input_nodes[0]
    return None


def _settle_numbers(graph: fx.Graph) -> None:
    """Put values in place of the numbers that stay what they are when channels go: extents of
    positions, what is worked out from them, and tensors of one number.
    """
    numbers: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if numbers.keys() & node.all_input_nodes:
            node.args = fx.map_arg(node.args, lambda n: numbers.get(n, n))
            node.kwargs = fx.map_arg(node.kwargs, lambda n: numbers.get(n, n))
        if _stays(node):
            numbers[node] = node.meta["number"]
    _erase_unread(graph, numbers)


def _stays(node: fx.Node) -> bool:
    """Whether a value stays what it is when channels go."""
    if node.op == "get_attr":
        return node.meta["shape"] in ((), (1,))
    if node.meta["shape"] is not None or node.op not in ("call_function", "call_method"):
        return False
    extent = _extent(node)
    if extent is None:
        return not node.all_input_nodes
    which, value = extent
    first = which.start if isinstance(which, slice) else which
    return isinstance(first, int) and first % len(value.meta["shape"]) >= 2


class _Shapes(fx.Interpreter):
    """Runs a graph on the meta device and notes the shape of every value."""

    # PyTorch would take longest for what changes no shape: so the value itself stands for it.

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and target in SAME_SHAPE:
            return args[0]
        return super().call_function(target, args, kwargs)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer, x = self.fetch_attr(target), (*args, *kwargs.values())[0]
        norm = type(layer) in NORMS and fits(type(layer).__name__, x.shape)
        if type(layer) in SAME_SHAPE or (norm and layer.num_features == x.shape[1]):
            return x
        tensors = chain(layer.named_parameters(), layer.named_buffers())
        stand_ins = {name: tensor.to("meta") for name, tensor in tensors}
        return functional_call(layer, stand_ins, args, kwargs)

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = super().get_attr(target, args, kwargs)
        return value.to("meta") if isinstance(value, Tensor) else value

    def run_node(self, node: fx.Node) -> Any:
        try:
            value = super().run_node(node)
        except Exception as error:
            raise PruningError(f"{name_of(node)} fails: {error}") from error
        tensor = isinstance(value, Tensor)
        node.meta["shape"] = tuple(value.shape) if tensor else None
        node.meta["number"] = 1.0 if tensor else value  # of a tensor any number will do
        return value


def name_of(node: fx.Node) -> str:
    """What a node calls, by name."""
    return getattr(node.target, "__name__", str(node.target))


def refusal(node: fx.Node, what: str) -> PruningError:
    """What to raise for a node that can't be pruned around; `what` names it."""
    inside = node.meta.get("nn_module_stack") or {}  # fx notes the modules that a call stands in
    where = f" in {next(reversed(inside))}" if any(inside) else ""
    fix = " To flatten, write torch.flatten(x, 1)." if _reshapes(node) else ""
    return PruningError(
        f"{what} (node {node.name}{where}) can't be pruned around: "
        f"the network may consist of {KNOWN} only.{fix}{NOT_STRICT}"
    )


def _reshapes(node: fx.Node) -> bool:
    """Whether it is a view, or reads off an extent for one."""
    reads = name_of(node) in ("size", "getattr", "getitem")
    views = name_of(node) in ("view", "reshape", "squeeze")
    return views or (reads and any(map(_reshapes, node.users)))


def fits(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether a layer for 1-D, 2-D or 3-D positions gets images, channels and positions.

    PyTorch takes one dimension less for a single image: the batch for channels, and the channels
    for positions.
    """
    positions = re.search(r"([123])d$", kind)
    return positions is None or len(shape) == int(positions[1]) + 2
