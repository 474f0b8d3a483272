"""What changes in a network when single channels are read as zero, and nothing else.

The network runs once, and every value is kept. For one image, each ablation is then a row: the
difference that it makes to a value, [rows, …]. Layers with weights are linear, so they turn
differences into differences, without their bias; and what a channel contributes to a reader is the
same whatever the other channels hold. Anything else, an activation say, gives
f(old + difference) − f(old). Values that come before a channel's readers aren't computed again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from .group import Group, require_theirs
from .layers import ADDITIONS, CONVOLUTIONS, NORMS, is_grouped
from .matrices import Matrix, as_matrix, convolve
from .tracing import PruningError, graph_of

RELUS = {torch.relu, torch.relu_, nn.functional.relu, "relu", "relu_"}
Values = Mapping[fx.Node, Tensor]


@dataclass(frozen=True)
class Rows:
    """Rows `start` to `stop` of a sweep take away the channels `indices` of group `number`."""

    number: int
    indices: Tensor
    start: int
    stop: int


class Differences:
    """A folded copy of a network, ready to tell what single ablations change.

    `groups`: all or some of find_groups'. Their readers are visited in the order in which the
    network computes them, and so are the rows of a sweep.
    Raises PruningError for a batch norm without running statistics, where an image's logits depend
    on its batch, for a network that gives more than one tensor, and for another network's groups.
    """

    def __init__(self, network: nn.Module, groups: Mapping[str, Group]) -> None:
        _check(network, groups)
        with torch.inference_mode(False):  # parameters are made
            copied = copy.deepcopy(network).eval()
            _give_scales(copied)
            graph_module = fx.GraphModule(copied, graph_of(copied))
            self.network = fuse(graph_module, inplace=True, no_trace=True)
        modules = dict(self.network.named_modules())
        graph: Any = self.network.graph
        nodes = list(graph.nodes)
        if any(node.op == "get_attr" or node.target in ("size", getattr) for node in nodes):
            raise PruningError(
                "Single filters can't be ablated in a network that reads shapes or tensors of its "
                "own: choose taylor or fisher."
            )
        self.input, self.nodes, self.output = nodes[0], nodes[1:-1], nodes[-1].args[0]
        if not isinstance(self.output, fx.Node):
            raise PruningError("The network gives more than one tensor: ablation needs its logits.")
        self.module = {n: modules[n.target] for n in nodes if n.op == "call_module"}
        node_of = {node.target: node for node in self.module}
        readers = {
            name: [node_of[reader] for reader, _ in group.readers] for name, group in groups.items()
        }
        first = {name: min(map(nodes.index, found)) for name, found in readers.items()}
        self.groups = sorted(groups.values(), key=lambda group: first[group.name])
        self.reads = {
            node: number for number, group in enumerate(self.groups) for node in readers[group.name]
        }
        # How many groups, in order, can have changed a node's value.
        self.depends = {self.input: 0}
        for node in self.nodes:
            before = [self.depends[source] for source in node.all_input_nodes]
            self.depends[node] = max([self.reads.get(node, -1) + 1, *before])
        self.last_use = {source: node for node in self.nodes for source in node.all_input_nodes}
        self.matrices: dict[fx.Node, Matrix | None] = {}
        self.by_index: dict[fx.Node, Tensor] = {}

    def run(self, images: Tensor) -> dict[fx.Node, Tensor]:
        """Every value of the folded network, [N, …], channels last in memory."""
        values = {self.input: _channels_last(images)}
        for node in self.nodes:
            (*sources,) = (values[source] for source in node.all_input_nodes)
            if not self._is_linear(node):  # it may work in place
                sources = [source.clone() for source in sources]
            values[node] = _channels_last(self._call(node, *sources))
        return values

    def _call(self, node: fx.Node, *sources: Tensor) -> Any:
        given = dict(zip(node.all_input_nodes, sources, strict=True))
        args = fx.map_arg(node.args, given.__getitem__)
        kwargs = fx.map_arg(node.kwargs, given.__getitem__)
        if node.op == "call_module":
            return self.module[node](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def present(self, values: Values) -> list[Tensor]:
        """For each group, bool [N, size]: whether a reader gets anything but zero from a channel.

        To take away a channel that is zero everywhere changes nothing.
        """
        found: list[Any] = [False] * len(self.groups)
        for node, number in self.reads.items():
            read = values[node.all_input_nodes[0]]
            by_channel = read.reshape(len(read), self.groups[number].size, -1)
            found[number] = found[number] | (by_channel != 0).any(2)
        return found

    def sweeps(self, values: Values, present: list[Tensor], most: int) -> Iterator[list[Rows]]:
        """Share out the ablations of one image, so that no value has more than `most` elements over
        all rows of a sweep (one row at least).

        `present`: bool [size] for each group.
        """
        sizes = [
            max(values[node][0].numel() for node in self.nodes if self.depends[node] > number)
            for number in range(len(self.groups))
        ]
        sweep: list[Rows] = []
        used, limit = 0, 0
        for number in range(len(self.groups)):
            left = present[number].nonzero()[:, 0]
            while len(left):
                if used == limit:
                    if sweep:
                        yield sweep
                    sweep, used, limit = [], 0, max(1, most // sizes[number])
                taken, left = left[: limit - used], left[limit - used :]
                sweep.append(Rows(number, taken, used, used + len(taken)))
                used += len(taken)
        if sweep:
            yield sweep

    def logits(self, values: Values, sweep: list[Rows]) -> Tensor:
        """The logits [rows, classes] of one image, given its values [1, …]."""
        rows_of = {rows.number: rows for rows in sweep}
        ends = [0]  # of the rows that the first 0, 1, 2, … groups have
        for number in range(len(self.groups)):
            ends.append(rows_of[number].stop if number in rows_of else ends[-1])
        differences: dict[fx.Node, Tensor] = {}
        for node in self.nodes:
            count = ends[self.depends[node]]
            if count and self._is_linear(node):
                rows = rows_of.get(self.reads.get(node, -1))
                differences[node] = self._read(node, values, differences, rows, count)
            elif count and node.target in ADDITIONS and _of_one_shape(node, values):
                differences[node] = self._added(node, differences, values[node], count)
            elif count:
                differences[node] = self._applied(node, values, differences, count)
            for source in node.all_input_nodes:
                if self.last_use[source] is node:
                    differences.pop(source, None)
        return differences[self.output] + values[self.output]

    def _applied(self, node: fx.Node, values: Values, differences: Values, count: int) -> Tensor:
        """What an activation, pooling or anything else but a sum makes of differences."""
        first = node.all_input_nodes[0]
        if not self._is_relu(node):
            now = [
                _shifted(values[source], differences.get(source), count)
                for source in node.all_input_nodes
            ]
            return self._call(node, *now) - values[node]
        before, old = differences[first], values[first]
        if self.last_use[first] is not node:
            before = before.clone()
        # relu(old + before) − relu(old), in place
        return before.clamp_(min=-old).add_(old.clamp(max=0))

    def _added(self, node: fx.Node, differences: Values, value: Tensor, count: int) -> Tensor:
        """The sum of differences, of which the shorter ones have none in their later rows."""
        inputs = (*node.args, *(node.kwargs.get(name) for name in ("input", "other")))
        inputs = tuple(source for source in inputs if source is not None)
        parts = [
            (source, factor)
            for source, factor in zip(inputs, (1, node.kwargs.get("alpha", 1)), strict=False)
            if isinstance(source, fx.Node) and source in differences
        ]
        total = None
        for source, factor in parts:  # one that isn't needed again takes up the others
            if self.last_use[source] is node and factor == 1 and len(differences[source]) == count:
                total = differences[source]
                parts.remove((source, factor))
                break
        if total is None:
            total = _like(value, count).zero_()
        for source, factor in parts:
            part = differences[source]
            total[: len(part)].add_(part, alpha=factor)  # type: ignore[arg-type]
        return total

    def _read(
        self, node: fx.Node, values: Values, differences: Values, rows: Rows | None, count: int
    ) -> Tensor:
        """What a layer makes of its input's differences, and of the channels taken from it."""
        (source,) = node.all_input_nodes
        before, value = differences.get(source), values[node]
        if rows is None:
            assert before is not None
            return self._linear(node, before, value, count)
        if before is not None and len(before) > rows.start:  # another reader comes before this one
            before = before.clone(memory_format=torch.contiguous_format)
            size, number = self.groups[rows.number].size, torch.arange(len(rows.indices))
            channels = values[source].reshape(size, -1)[rows.indices]
            of_group = before[rows.start : rows.stop].view(len(number), size, -1)
            of_group[number.to(before.device), rows.indices] = -channels
            return self._linear(node, _channels_last(before), value, count)
        if before is None:
            total = _like(value, count)
            total[: rows.start] = 0
        else:
            total = self._linear(node, before, value, count)
            total[len(before) : rows.start] = 0
        total[rows.start : rows.stop] = self._taken(node, values[source], rows)
        total[rows.stop :] = 0
        return total

    def _taken(self, node: fx.Node, read: Tensor, rows: Rows) -> Tensor:
        """Minus what single channels contribute to a reader's output, [indices, …]."""
        layer: Any = self.module[node]
        size, count, width = self.groups[rows.number].size, len(rows.indices), len(layer.weight)
        if isinstance(layer, nn.Linear):
            columns = layer.weight.t().reshape(size, -1, width)[rows.indices]
            return -(read.reshape(size, 1, -1)[rows.indices] @ columns)[:, 0]
        if node not in self.by_index:
            by_index = layer.weight.unflatten(1, (size, -1)).transpose(0, 1)
            self.by_index[node] = -by_index.contiguous()
        # Each index with its own filters: a convolution in as many groups. To leave a few indices
        # out of the result moves less memory than to leave them out of the filters.
        first, end = int(rows.indices[0]), int(rows.indices[-1]) + 1
        chosen = slice(first, end) if 4 * (end - first) <= 5 * count else rows.indices
        filters = self.by_index[node][chosen].flatten(0, 1)
        taken = read.unflatten(1, (size, -1))[:, chosen].flatten(1, 2).contiguous()
        out = convolve(layer, taken, filters, filters.shape[0] // width)
        out = out.view(-1, width, *out.shape[2:])
        return out if len(out) == count else out[rows.indices - first]

    def _linear(self, node: fx.Node, before: Tensor, value: Tensor, count: int) -> Tensor:
        """A layer with weights, without its bias; rows after those of `before` are left open."""
        layer: Any = self.module[node]
        if isinstance(layer, nn.Linear):
            found = before @ layer.weight.t()
        else:
            if node not in self.matrices:
                self.matrices[node] = as_matrix(layer, before.shape[2:], value.shape[2:])
            matrix = self.matrices[node]
            if matrix is not None:
                total = _like(value, count)
                matrix.multiply(before, total[: len(before)])
                return total
            found = _channels_last(convolve(layer, before, layer.weight, 1))
        if len(before) == count:
            return found
        total = _like(value, count)
        total[: len(before)] = found
        return total

    def _is_linear(self, node: fx.Node) -> bool:
        layer = self.module.get(node)
        return isinstance(layer, (*CONVOLUTIONS, nn.Linear)) and not is_grouped(layer)

    def _is_relu(self, node: fx.Node) -> bool:
        return type(self.module.get(node)) is nn.ReLU or node.target in RELUS


def _check(network: nn.Module, groups: Mapping[str, Group]) -> None:
    for name, module in network.named_modules():
        if isinstance(module, NORMS) and module.running_mean is None:
            raise PruningError(
                f"{name} keeps no running statistics, so that an image's logits depend on its "
                "batch: ablation needs track_running_stats=True."
            )
    require_theirs(network, groups.values())


def _give_scales(network: nn.Module) -> None:
    """Batch norms without scale and shift get ones and zeros: behind a linear layer, PyTorch folds
    no others.
    """
    for norm in network.modules():
        if isinstance(norm, NORMS) and norm.weight is None:
            norm.weight = nn.Parameter(torch.ones_like(norm.running_var))  # type: ignore[arg-type]
            norm.bias = nn.Parameter(torch.zeros_like(norm.running_var))  # type: ignore[arg-type]


def _channels_last(x: Tensor) -> Tensor:
    """The same tensor, its channels next to each other in memory."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def _of_one_shape(node: fx.Node, values: Values) -> bool:
    """Whether nothing is repeated over positions to fit the rest."""
    return len({values[source].shape for source in node.all_input_nodes}) == 1


def _shifted(old: Tensor, before: Tensor | None, count: int) -> Tensor:
    """A value [1, …] in each of `count` rows, of which the first differ by `before`."""
    if before is not None and len(before) == count:
        return before + old
    rows = old.repeat(count, *[1] * (old.dim() - 1))
    if before is not None:
        rows[: len(before)] += before
    return rows


def _like(value: Tensor, count: int) -> Tensor:
    """Memory for `count` rows of the shape of a value [1, channels, …], channels last."""
    return value.new_empty(count, *value.shape[2:], value.shape[1]).movedim(-1, 1)
