"""What the criteria that look at data share: a network seen where its channels are read.

An index is removed by taking its channel from the layers that read it, so that is where it is
judged, not behind the filter: between the two lie batch norm and activation. What a gate is: a
factor of 1 on a channel as all its readers read it; at 0 the channel is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..group import Group, require_theirs
from ..tracing import PruningError, evaluating
from .weights import Batches, Scores

# (group name, columns per channel, what a reader is about to read) → what it reads instead, or None
Look = Callable[[str, int, Tensor], Tensor | None]


@contextmanager
def reading(network: nn.Module, groups: Mapping[str, Group], look: Look) -> Iterator[None]:
    """Inside the `with`, `look` sees, and may replace, what every reader reads."""
    require_theirs(network, groups.values())
    handles = []
    try:
        for name, group in groups.items():
            for reader, columns in group.readers:
                layer = network.get_submodule(reader)
                hook = partial(_hook, partial(look, name, columns))
                handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(
    look: Callable[[Tensor], Tensor | None],
    _: nn.Module,
    inputs: tuple[Tensor, ...],
    named: dict[str, Tensor],
) -> tuple[tuple[Tensor], dict[str, Tensor]] | None:
    (x,) = (*inputs, *named.values())
    seen = look(x)
    return None if seen is None else ((seen,), {})


def images_of(
    network: nn.Module, batches: Batches | None, criterion: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, each moved to where the network is.

    Raises PruningError, naming the criterion, where there are none or no image is in them.
    """
    if batches is None:
        raise PruningError(
            f"{criterion} looks at data: give it batches, pairs of images and labels."
        )
    device = next(network.parameters()).device
    count = 0
    for images, labels in batches:
        count += len(images)
        if len(images):
            yield images.to(device), labels.to(device)
    if count == 0:
        raise PruningError(
            f"{criterion} was given batches without an image: "
            "a generator can be gone through once only, so make it anew or give a list."
        )


def mean_over_gates(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None,
    criterion: str,
    of: Callable[[Tensor], Tensor],
) -> Scores:
    """The mean over all images of `of`(an image's loss differentiated by its gates, [N, size]).

    Every image has a gate of its own on every index, so images in one batch don't mix; one gate
    serves all readers of the index, so what they contribute adds up. The loss is the cross-entropy
    of one image.
    """
    if not groups:
        return {}
    sums = {name: torch.zeros(group.size, dtype=torch.float64) for name, group in groups.items()}
    gates: dict[str, Tensor] = {}
    count = 0

    def gated(name: str, columns: int, x: Tensor) -> Tensor:
        factors = gates[name].repeat_interleave(columns, dim=1).to(x.dtype)
        return x * factors.view(*factors.shape, *[1] * (x.dim() - 2))

    with evaluating(network), reading(network, groups, gated), torch.enable_grad():
        for images, labels in images_of(network, batches, criterion):
            for name, group in groups.items():
                gates[name] = images.new_ones(len(images), group.size).requires_grad_()
            # The sum, not the mean: an image's gradient mustn't depend on how many are beside it.
            loss = F.cross_entropy(network(images), labels, reduction="sum")
            gradients = torch.autograd.grad(loss, list(gates.values()), materialize_grads=True)
            for name, gradient in zip(gates, gradients, strict=True):
                sums[name] += of(gradient.cpu().double()).sum(0)
            count += len(images)
    return {name: total / count for name, total in sums.items()}
