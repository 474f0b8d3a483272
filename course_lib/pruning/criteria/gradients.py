"""Criteria that differentiate the loss by a gate on each channel.

Why gates and not weights: Σ gradient · weight over a filter that batch norm follows is zero in
training mode, since the loss doesn't change when such a filter is scaled.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..groups import Group
from .gates import mean_over_gates
from .weights import Batches, Scores


def taylor(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """The mean over images of |∂loss/∂gate|: to first order, how much removing the channel changes
    the loss on an image.

    Molchanov et al. 2016, arXiv 1611.06440, equation 8: absolute per image, then averaged. They
    take the mean over a channel's positions, we the sum, which is the change itself; within a
    layer the order is the same.
    Raises PruningError without images.
    """
    return mean_over_gates(network, groups, batches, "taylor", torch.abs)


def fisher(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """Half the mean over images of (∂loss/∂gate)²: the loss that removing the channel would cost at
    a minimum, to second order, with the Fisher information in place of the second derivative.

    Theis et al. 2018, arXiv 1801.05787; without the half also Molchanov et al. 2019, arXiv
    1906.10771.
    Raises PruningError without images.
    """
    return mean_over_gates(network, groups, batches, "fisher", _half_square)


def _half_square(gradients: Tensor) -> Tensor:
    return gradients.square() / 2
