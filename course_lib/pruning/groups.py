"""Which filters must go together, and which layers read them.

A network is traced once (`tracing.py`). Every value that flows through it has a *channel space*: a
convolution reads the space of its input and opens a new one; grouped convolutions, batch norm,
activations and pooling stay inside theirs; a sum ties two spaces into one, and so does a product.
What is left at the end, space by space, are the groups.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from .group import Group
from .layers import (
    ARITHMETIC,
    CONVOLUTIONS,
    FLATTENS,
    NORMS,
    OVER_POSITIONS,
    PER_CHANNEL_FUNCTIONS,
    PER_CHANNEL_MODULES,
    PER_CHANNEL_NAMES,
    is_grouped,
    kind_of,
)
from .plain import bound_weights, require_called, require_plain
from .tracing import (
    NOT_STRICT,
    PruningError,
    fits,
    name_of,
    refusal,
    traced,
    with_channels_of,
)


@dataclass
class _Space:
    """One channel space while the walk goes on; `merged` points to the space it was tied to."""

    width: int
    producers: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)
    grouped: list[str] = field(default_factory=list)
    channels: int = 1  # that go together
    fixed: bool = False  # nothing may be removed: the network's input or output, say
    merged: _Space | None = None

    def root(self) -> _Space:
        return self if self.merged is None else self.merged.root()

    def tie(self, other: _Space) -> None:
        mine, theirs = self.root(), other.root()
        if mine is theirs:
            return
        for name in ("producers", "norms", "readers", "grouped"):
            getattr(mine, name).extend(getattr(theirs, name))
        mine.channels = math.lcm(mine.channels, theirs.channels)
        mine.fixed |= theirs.fixed
        theirs.merged = mine


@dataclass(frozen=True)
class _Value:
    """What the walk knows of one value: its space, its columns per channel, its shape."""

    space: _Space
    columns: int
    shape: tuple[int, ...]


def find_groups(network: nn.Module, example: Tensor, *, strict: bool = True) -> dict[str, Group]:
    """Find the groups of a network, in the order in which it computes them.

    `example`: one batch of the shape the network takes (its values don't matter; nothing is
    computed with them). Of `forward`'s arguments it is the first, the others keep their defaults.
    Each group is named after its first producer. Filters that make the network's output are in no
    group.
    Raises PruningError, naming the layer, for anything but convolution (in groups only where each
    makes as many channels as it reads), batch norm, elementwise activation, pooling, upsampling,
    padding, flatten, linear layer and + − × ÷, for weights used twice, and for layers that only
    training calls. Without `strict`, what such a thing reads or makes is in no group either, and
    the rest can be pruned; but a layer that only training calls is then not seen and may no longer
    fit. What training does otherwise with layers that evaluation calls, too, isn't seen in either
    case. Refused all the same: what `torch.fx` can't trace, and layers with a hook or a `forward`
    of their own.
    Numbers that `forward` reads off a layer, such as `conv.out_channels`, change with the surgery.
    """
    bound = bound_weights(network)
    if strict and bound:
        raise PruningError(f"{next(iter(bound.values()))}{NOT_STRICT}")
    require_plain(network, bound)
    graph = traced(network, example)
    if "forward" in vars(network):  # its class's was traced
        raise PruningError(
            f"{type(network).__name__} has a forward of its own, which can't be traced: delete it."
        )
    for node in graph.nodes:
        if node.op == "get_attr":  # read past its layer, which must keep its shape
            bound[str(node.target).rpartition(".")[0]] = f"{node.target} is read past its layer."
    walk = _Walk(dict(network.named_modules()), bound, strict)
    for node in graph.nodes:
        walk.visit(node)
    if strict:
        require_called(network, walk.calls)
    order = {name: place for place, (name, _) in enumerate(network.named_modules())}
    groups = {}
    for space in walk.spaces:
        if space.merged is None and not space.fixed and space.readers:
            assert space.producers, "a space that is not an input has a producer"
            producers = tuple(sorted(space.producers, key=walk.calls.__getitem__))
            groups[producers[0]] = Group(
                producers[0],
                space.width // space.channels,
                producers,
                tuple(sorted(space.norms, key=order.__getitem__)),
                tuple(
                    (reader, columns * space.channels)
                    for reader, columns in sorted(space.readers, key=lambda r: walk.calls[r[0]])
                ),
                tuple(sorted(space.grouped, key=walk.calls.__getitem__)),
                space.channels,
            )
    return dict(sorted(groups.items(), key=lambda item: walk.calls[item[0]]))


class _Walk:
    """Goes through the traced graph once and keeps the channel spaces."""

    def __init__(self, modules: dict[str, nn.Module], bound: dict[str, str], strict: bool) -> None:
        self.modules, self.bound, self.strict = modules, bound, strict
        self.values: dict[fx.Node, _Value] = {}
        self.spaces: list[_Space] = []
        self.calls: dict[str, int] = {}  # when each layer is called, counted from 0
        self.along: dict[str, list[_Space]] = {}  # the spaces that its weights lie along

    def visit(self, node: fx.Node) -> None:
        if node.op == "output":
            self._fix(node)
            return
        try:
            self.values[node] = self._value(node)
        except PruningError:
            if self.strict:
                raise
            self._fix(node)
            self.values[node] = _Value(_Space(0, fixed=True), 1, node.meta["shape"] or ())

    def _fix(self, node: fx.Node) -> None:
        """Nothing may be removed of what the node reads, nor of a layer that it calls again."""
        read = [self.values[source].space for source in node.all_input_nodes]
        for space in (*read, *self.along.get(str(node.target), ())):
            space.root().fixed = True

    def _value(self, node: fx.Node) -> _Value:
        if node.op == "placeholder":
            return self._opened(node, fixed=True)
        if node.op == "call_module":
            return self._module(node, str(node.target))
        if node.op in ("call_function", "call_method"):
            return self._function(node)
        raise refusal(node, f"the tensor {node.target}")

    def _opened(self, node: fx.Node, producer: str = "", fixed: bool = False) -> _Value:
        shape = _shape(node)
        if len(shape) < 2:
            raise refusal(node, f"a value of shape {shape}, which has no channels,")
        space = _Space(shape[1], [producer] if producer else [], fixed=fixed)
        self.spaces.append(space)
        return _Value(space, 1, shape)

    def _module(self, node: fx.Node, name: str) -> _Value:
        module: Any = self.modules[name]
        kind, source = kind_of(module), self._source(node)
        if isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise refusal(node, f"{name}, a Flatten that isn't over everything but the batch,")
            return self._flattened(node, source)
        fitting = fits(kind.__name__, source.shape)
        own_slopes = kind is nn.PReLU and module.num_parameters > 1
        if kind in PER_CHANNEL_MODULES and fitting and not own_slopes:
            return _Value(source.space, source.columns, _shape(node))
        if name in self.calls:
            raise PruningError(
                f"{name} is called twice: filters shared by two places can't be pruned.{NOT_STRICT}"
            )
        if name in self.bound:
            raise PruningError(f"{self.bound[name]}{NOT_STRICT}")
        self.calls[name] = len(self.calls)
        self.along[name] = [source.space]
        if kind in NORMS and source.columns == 1:
            source.space.root().norms.append(name)
            return source
        if is_grouped(module) and source.columns == 1 and fitting:
            space = source.space.root()
            space.grouped.append(name)
            space.channels = math.lcm(space.channels, space.width // module.groups)
            return _Value(space, 1, _shape(node))
        convolves = kind in CONVOLUTIONS and module.groups == 1 and fitting
        if convolves or (kind is nn.Linear and len(source.shape) == 2):
            source.space.root().readers.append((name, source.columns))
            made = self._opened(node, name)
            self.along[name].append(made.space)
            return made
        if kind in NORMS:
            raise refusal(node, f"{name}, a batch norm behind a flatten of several positions,")
        grouped = getattr(module, "groups", 1) != 1
        what = f"{'grouped ' if grouped else ''}{type(module).__name__}"
        raise refusal(node, f"{name}, a {what} on a value of shape {source.shape},")

    def _function(self, node: fx.Node) -> _Value:
        if self._works_per_channel(node) or self._keeps_to_positions(node):
            source = self._source(node)
            return _Value(source.space, source.columns, _shape(node))
        span = (_argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1))
        if node.target in FLATTENS and span == (1, -1):
            return self._flattened(node, self._source(node))
        if node.target is with_channels_of:
            return self._reshaped(node)
        if node.target in ARITHMETIC:
            return self._combined(node)
        reads = node.target in ("size", getattr, operator.getitem) and node.meta["shape"] is None
        what = "what a shape says of channels" if reads else f"the operation {name_of(node)}"
        raise refusal(node, what)

    def _works_per_channel(self, node: fx.Node) -> bool:
        known = node.target in PER_CHANNEL_FUNCTIONS or name_of(node) in PER_CHANNEL_NAMES
        return known and fits(name_of(node), self._source(node).shape)

    def _keeps_to_positions(self, node: fx.Node) -> bool:
        """Whether a mean, say, goes over positions only, so that channels stay apart."""
        if node.target is operator.getitem:  # x[:, :, ::2], say
            index = node.args[1]
            return isinstance(index, tuple) and index[:2] == (slice(None), slice(None))
        if node.target is F.pad:
            return len(_argument(node, 1, "pad", ())) <= 2 * (len(_shape(node)) - 2)
        if node.target not in OVER_POSITIONS:
            return False
        dims = _argument(node, 1, "dim", None)
        dims = (dims,) if isinstance(dims, int) else dims
        rank = max(len(self._source(node).shape), len(_shape(node)))
        return bool(dims) and all(dim % rank >= 2 for dim in dims)

    def _flattened(self, node: fx.Node, source: _Value) -> _Value:
        positions = 1
        for extent in source.shape[2:]:
            positions *= extent
        return _Value(source.space, source.columns * positions, _shape(node))

    def _reshaped(self, node: fx.Node) -> _Value:
        value, other = (self.values[source] for source in node.all_input_nodes)
        if value.columns != 1 or other.columns != 1 or value.shape[1] != other.shape[1]:
            raise refusal(node, f"a view of the shape {value.shape}")
        value.space.tie(other.space)
        return _Value(value.space, 1, _shape(node))

    def _combined(self, node: fx.Node) -> _Value:
        values = [self.values[source] for source in node.all_input_nodes]
        first, *others = values
        # PyTorch repeats the smaller one: over positions it may, over channels it may not.
        if len({(len(value.shape), value.shape[:2]) for value in values}) > 1:
            shapes = " and ".join(str(value.shape) for value in values)
            raise refusal(node, f"{name_of(node)} of the shapes {shapes}")
        if any(value.columns != first.columns for value in others):
            raise refusal(node, f"{name_of(node)} of values that were flattened differently")
        for value in others:
            first.space.tie(value.space)
        return _Value(first.space, first.columns, _shape(node))

    def _source(self, node: fx.Node) -> _Value:
        sources = node.all_input_nodes
        if len(sources) != 1:
            raise refusal(node, f"{name_of(node)}, which takes {len(sources)} values,")
        return self.values[sources[0]]


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _shape(node: fx.Node) -> tuple[int, ...]:
    if node.meta["shape"] is None:
        raise refusal(node, f"{name_of(node)}, which isn't a single tensor,")
    return node.meta["shape"]
