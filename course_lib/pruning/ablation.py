"""Critical filters: how many right answers of each class are lost without a filter.

Dimovska & Johnston 2019, "A Novel Pruning Method for Convolutional Neural Networks Based off
Identifying Critical Filters", PEARC '19: a filter matters for a class if removing it hurts that
class's accuracy most. Done naively, that is a pass over the validation set for every filter; here
every image runs once, and then only what an ablation changes is computed (`differences.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from .differences import Differences
from .groups import Group, PruningError, find_groups
from .plain import NOT_STRICT
from .tracing import NotTraceable

Batches = Iterable[tuple[Tensor, Tensor]]
AT_ONCE = 32  # images whose values are kept at a time
MOST_ELEMENTS = 2**22  # of one value over all rows of a sweep: 16 MB in float32


@torch.inference_mode()
def ablate(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches,
    *,
    classes: int | None = None,
    progress: Callable[[int], object] | None = None,
    most_elements: int = MOST_ELEMENTS,
) -> dict[str, Tensor]:
    """Right answers of each class with one index at a time zeroed at the input of its readers.

    Returns {group name: long tensor [size, classes]} on the CPU, what one validation pass per index
    would count: an answer can differ only where the two largest logits are equal up to rounding.
    The network, which may be in training mode, is left as it is and evaluated as in `eval()`.
    `batches`: images and labels, gone through once. `classes`: default, as
    many as the network has logits. `progress` is called with the number of images that were done.
    `most_elements` bounds the memory: no value has more over all ablations that are done at once,
    but for a quarter where some channels are zero and a single ablation that takes more.
    Raises PruningError for no images, for a label that isn't a class, for a network that
    `find_groups` can prune a part of only, and as `Differences` does.
    """
    differences: Differences | None = None
    device = next(network.parameters()).device
    counts: dict[str, Tensor] | None = None
    for images, labels in _parts(batches):
        images, labels = images.to(device), labels.to(device)
        if differences is None:
            _require_understood(network, images[:1])
            differences = Differences(network, groups)
        values = differences.run(images)
        answers = values[differences.output]
        width = classes or answers.shape[1]
        if int(labels.min()) < 0 or int(labels.max()) >= width:
            raise PruningError(
                f"There are labels outside the {width} classes, 0 to {width - 1}: correct them, "
                "or tell ablate how many classes there are, by classes=."
            )
        if counts is None:
            counts = {g.name: torch.zeros(g.size, width, dtype=torch.long) for g in groups.values()}
        right = answers.argmax(1) == labels
        for count in counts.values():
            count += torch.bincount(labels[right], minlength=width).cpu()
        present = differences.present(values)
        for image, (label, was) in enumerate(zip(labels.tolist(), right.tolist(), strict=True)):
            one = {node: value[image : image + 1] for node, value in values.items()}
            there = [channels[image] for channels in present]
            for sweep in differences.sweeps(one, there, most_elements):
                change = (differences.logits(one, sweep).argmax(1) == label).long() - int(was)
                for rows in sweep:
                    name = differences.groups[rows.number].name
                    counts[name][rows.indices.cpu(), label] += change[rows.start : rows.stop].cpu()
            if progress is not None:
                progress(1)
    if counts is None:
        raise PruningError(
            "ablate or critical was given batches without an image: give it images and labels."
        )
    return counts


def _require_understood(network: nn.Module, example: Tensor) -> None:
    try:
        find_groups(network, example)
    except NotTraceable:
        pass  # nor can it be run: said elsewhere
    except PruningError as error:
        reason = str(error).removesuffix(NOT_STRICT)
        raise PruningError(
            f"Single filters can be ablated only in a network that is understood whole. {reason}"
        ) from error


def _parts(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels in batches:
        if len(images) == 0:
            continue
        yield from zip(images.split(AT_ONCE), labels.split(AT_ONCE), strict=True)


def critical(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Minus the best rank that an index has for any class: at least −k is among the top k of one.

    See `ranks`. Dimovska & Johnston 2019, as one of its authors retells it: the k most critical
    filters of each class and layer are kept.
    Raises PruningError without batches of images and labels.
    """
    if batches is None:
        raise PruningError("critical looks at data: give it batches of images and labels.")
    counts = ablate(network, groups, batches)
    return {name: -ranks(count).amin(1).float() for name, count in counts.items()}


def critical_approximate(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
    per_class: int = 8,
) -> dict[str, Tensor]:
    """APPROXIMATE: `critical` on the first `per_class` images of each class and no others."""
    chosen = None if batches is None else first_of_each_class(batches, per_class)
    return critical(network, groups, chosen)


def first_of_each_class(batches: Batches, per_class: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches without what comes after the first `per_class` images of each class."""
    seen: dict[int, int] = {}
    for images, labels in batches:
        chosen = []
        for place, label in enumerate(labels.tolist()):
            seen[label] = seen.get(label, 0) + 1
            if seen[label] <= per_class:
                chosen.append(place)
        if chosen:
            yield images[chosen], labels[chosen]


def ranks(counts: Tensor) -> Tensor:
    """For each class, 1 for the index without which the fewest of its images are right, 2, …

    `counts`: [size, classes], a group's from `ablate`; so is the result. Of equal indices the one
    comes first without which fewer images of all classes are right, then the one with the lower
    number.
    """
    total = counts.sum(1, keepdim=True)
    order = (counts * (total.max() + 1) + total).argsort(dim=0, stable=True)
    places = torch.arange(1, len(counts) + 1)[:, None].expand_as(order)
    return torch.empty_like(order).scatter_(0, order, places)


def overlap(counts: Tensor, k: int) -> Tensor:
    """How far two classes share their k most critical indices: [classes, classes], from 0 to 1.

    The Jaccard index of the two sets, shared indices ÷ all indices in either. `counts`: [size,
    classes], a group's from `ablate`.
    """
    if not 1 <= k <= len(counts):
        raise PruningError(f"k={k}: choose 1 to {len(counts)}, the size of the group.")
    among = (ranks(counts) <= k).double()
    shared = among.t() @ among
    return shared / (2 * k - shared)
