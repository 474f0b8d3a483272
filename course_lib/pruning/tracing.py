"""A network's graph by torch.fx, with the shape of every value, worked out without computing.

The network itself is traced, not a copy. Its weights have no part in it: on the meta device, where
tensors have a shape and no numbers, they are replaced by stand-ins, a layer at a time.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from .layers import KNOWN_LAYERS, NORMS, kind_of

SAME_SHAPE = {nn.Identity, nn.ReLU, torch.relu, F.relu}  # and batch norms


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
    try:
        with untouched(network), torch.no_grad():
            graph = graph_of(network.eval())
            _Shapes(network, graph=graph).run(example.to("meta"))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
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
        raise PruningError(f"{where}: {error}" if where else str(error)) from error
    for node in list(graph.nodes):
        if _flattens(node):
            with graph.inserting_before(node):
                same = graph.call_function(torch.flatten, (node.args[0], 1))
            same.meta = node.meta
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    for node in reversed(graph.nodes):
        if node.target in ("size", getattr, operator.getitem) and not node.users:
            graph.erase_node(node)  # what a view asked for
    return graph


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


def _flattens(node: fx.Node) -> bool:
    """Whether a node is `x.view(n, -1)` or `x.reshape(n, -1)`, n being a value's first extent."""
    if node.op != "call_method" or node.target not in ("view", "reshape"):
        return False
    if node.kwargs or len(node.args) != 3 or node.args[2] != -1:
        return False
    extent = node.args[1]
    if not isinstance(extent, fx.Node):
        return False
    if extent.target == "size":  # x.size(0)
        return extent.args[1:] == (0,) or extent.kwargs == {"dim": 0}
    if extent.target is not operator.getitem or extent.args[1] != 0:
        return False
    shape = extent.args[0]  # x.shape[0] or x.size()[0]
    assert isinstance(shape, fx.Node)
    return shape.args[1:] in ((), ("shape",)) and shape.target in ("size", getattr)


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
        node.meta["shape"] = tuple(value.shape) if isinstance(value, Tensor) else None
        return value


def name_of(node: fx.Node) -> str:
    """What a node calls, by name."""
    return getattr(node.target, "__name__", str(node.target))


def fits(kind: str, shape: tuple[int, ...]) -> bool:
    """Whether a layer for 1-D, 2-D or 3-D positions gets images, channels and positions.

    PyTorch takes one dimension less for a single image: the batch for channels, and the channels
    for positions.
    """
    positions = re.search(r"([123])d$", kind)
    return positions is None or len(shape) == int(positions[1]) + 2
