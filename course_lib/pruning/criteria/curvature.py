"""Optimal Brain Damage (Le Cun et al. 1990): saliencies from the diagonal of second derivatives.

The saliency of a weight w is ½ h w², h the second derivative of the mean loss by this weight alone:
what setting it to zero would cost at a minimum, if the weights didn't depend on each other. That of
an index is the sum over its filters' weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..group import Group, require_theirs
from ..tracing import PruningError, evaluating
from .gates import images_of
from .weights import Batches, Scores

LARGEST_EXACT = 20_000  # weights; each costs a backward pass per batch
PROBES = 4
CHUNK = 32  # images behind one square
ROWS = 64  # rows of the matrix of second derivatives worked out at once


def obd(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
    probes: int = PROBES,
) -> Scores:
    """An unbiased estimate of OBD's saliency, from `probes` backward passes over the images.

    With logits z and probabilities p the cross-entropy has the second derivatives diag(p) − ppᵀ by
    z, and h is the mean over the images of Jᵀ (diag(p) − ppᵀ) J, J = ∂z/∂w: exactly so where z is
    linear in any one weight, as between the kinks of ReLU and max pooling; with other activations
    it is the part of h that is never negative (the Gauss-Newton approximation). A probe draws for
    each image a vector v with E[vvᵀ] = diag(p) − ppᵀ; with signs that are independent between
    images, (∂ Σ v·z/∂w)² is Σ h on average. Labels don't enter.
    Images are taken 32 at a time, whatever the batch size; drawn on the CPU, so that the draws are
    the same on every device.
    Raises PruningError without images.
    """
    if not groups:
        return {}
    weights = weights_of(network, groups)
    sums = {name: torch.zeros(len(weight), dtype=torch.float64) for name, weight in weights.items()}
    count = 0
    with evaluating(network), torch.enable_grad():
        for images in in_chunks(images_of(network, batches, "obd"), CHUNK):
            logits = functional_call(network, weights, (images,))
            for probe in range(probes):
                drawn = (random_curvature(logits.detach(), generator) * logits).sum()
                more = probe < probes - 1
                gradients = torch.autograd.grad(
                    drawn, list(weights.values()), retain_graph=more, materialize_grads=True
                )
                for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                    products = (weight.detach() * gradient).flatten(1)
                    sums[name] += products.square().sum(1).cpu().double()
            count += len(images)
    return over_groups(groups, {name: total / (2 * count * probes) for name, total in sums.items()})


def in_chunks(batches: Iterator[tuple[Tensor, Tensor]], size: int) -> Iterator[Tensor]:
    """The images of batches of any size in chunks of `size`, the last one perhaps smaller."""
    left = None
    for images, _ in batches:
        *whole, left = (images if left is None else torch.cat([left, images])).split(size)
        yield from whole
    if left is not None:
        yield left


def random_curvature(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """For each image a random v, [N, classes], with E[vvᵀ] = diag(p) − ppᵀ.

    Signs s at random give v = √p·s − p (√p·s), since (I − p1ᵀ) diag(p) (I − 1pᵀ) = diag(p) − ppᵀ.
    """
    p = logits.softmax(1)
    signs = torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1
    root = p.sqrt() * signs
    return root - p * root.sum(1, keepdim=True)


def obd_exact(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """OBD's saliency from the exact second derivatives; may be negative away from a minimum.

    One backward pass per weight and batch: for networks of 20,000 weights at most.
    Raises PruningError for larger ones, and without images.
    """
    if not groups:
        return {}
    weights = weights_of(network, groups)
    total = sum(weight.numel() for weight in weights.values())
    if total > LARGEST_EXACT:
        raise PruningError(
            f"obd_exact would need {total:,} backward passes per batch: choose obd, an estimate."
        )
    sums = {name: torch.zeros(len(weight), dtype=torch.float64) for name, weight in weights.items()}
    count = 0
    with evaluating(network), torch.enable_grad():
        for images, labels in images_of(network, batches, "obd_exact"):
            logits = functional_call(network, weights, (images,))
            loss = F.cross_entropy(logits, labels, reduction="sum")
            gradients = torch.autograd.grad(
                loss, list(weights.values()), create_graph=True, allow_unused=True
            )
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                if gradient is None:  # what it makes is dropped
                    continue
                products = second_derivatives(gradient, weight) * weight.detach().square()
                sums[name] += products.flatten(1).sum(1).cpu().double()
            count += len(images)
    return over_groups(groups, {name: total / (2 * count) for name, total in sums.items()})


def second_derivatives(gradient: Tensor, weight: Tensor) -> Tensor:
    """∂gradient[i]/∂weight[i] for every weight, in the weight's shape."""
    diagonal = torch.empty(weight.numel(), dtype=weight.dtype, device=weight.device)
    for rows in torch.arange(weight.numel(), device=weight.device).split(ROWS):
        ones = F.one_hot(rows, weight.numel()).to(weight).view(-1, *weight.shape)
        (derivatives,) = torch.autograd.grad(
            gradient, weight, ones, retain_graph=True, is_grads_batched=True
        )
        diagonal[rows] = derivatives.flatten(1)[torch.arange(len(rows)), rows]
    return diagonal.view(weight.shape)


def weights_of(network: nn.Module, groups: Mapping[str, Group]) -> dict[str, Tensor]:
    """The filters' weights as tensors of their own that can be differentiated by.

    They share the network's memory, but neither its `requires_grad` nor its `grad`.
    """
    require_theirs(network, groups.values())
    return {
        f"{maker}.weight": network.get_submodule(maker).weight.detach().requires_grad_()  # type: ignore[operator,union-attr]
        for group in groups.values()
        for maker in group.makers
    }


def over_groups(groups: Mapping[str, Group], saliencies: Mapping[str, Tensor]) -> Scores:
    """For each index the sum over its filters."""
    return {
        name: torch.stack([saliencies[f"{maker}.weight"] for maker in group.makers])
        .reshape(-1, group.size, group.channels)
        .sum((0, 2))
        for name, group in groups.items()
    }
