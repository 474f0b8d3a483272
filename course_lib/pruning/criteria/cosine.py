"""Criteria that look for redundancy: filters that point the same way, of which one is enough.

Two equal filters would both rank last if an index were scored by how close another one is, and both
would go. So similar ones are clustered, and the score of an index is the height in the dendrogram
at which it is absorbed by one that stays: below a threshold t then stand all but one of each
cluster that the dendrogram has when cut at t.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..group import Group, require_theirs
from ..tracing import PruningError
from .weights import Batches, Scores, filters_of

RANDOM_INPUTS = 1024  # the cosine of two outputs then has a standard error of about 1/32
LINKAGES = ("average", "complete")
Merge = tuple[int, int, float]  # which cluster is absorbed, by which, at which cosine distance


def cosine(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
    linkage: str = "average",
) -> Scores:
    """The cosine distance of filters' weights at which each is absorbed by another one.

    Ayinde & Zurada 2018, arXiv 1802.07653: agglomerative clustering of each layer's normalised
    filters, one kept of each cluster; their similarity threshold τ is `threshold=1 - τ` in
    `select`. `linkage`: two clusters are as far apart as their filters on "average", or as the two
    farthest ("complete", as in the authors' published code). The authors' code keeps the last one
    of a cluster; here the filter of the largest norm stays. Members of a group are taken together,
    end to end.
    """
    return {
        name: absorption_heights(filters_of(network, group), linkage)
        for name, group in groups.items()
    }


def cosine_outputs(
    network: nn.Module,
    groups: Mapping[str, Group],
    batches: Batches | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """The same of what the filters answer to random inputs, as the article describes it.

    A filter's answer at one position is a product with one patch of its input, plus its bias. So
    each layer gets 1,024 patches of its own, standard normal; drawn on the CPU, so that they are
    the same on every device. The inner product of two filters' answers is then on average that of
    their weights (and biases): for filters without bias this is a noisy `cosine`.
    """
    require_theirs(network, groups.values())
    scores = {}
    for name, group in groups.items():
        answers = []
        for maker in group.makers:
            layer = network.get_submodule(maker)
            weight = layer.weight.detach().flatten(1).cpu().double()  # type: ignore
            patches = torch.randn(RANDOM_INPUTS, weight.shape[1], generator=generator)
            answer = weight @ patches.double().T
            if layer.bias is not None:
                answer += layer.bias.detach().cpu().double()[:, None]  # type: ignore
            answers.append(answer.reshape(group.size, -1))
        scores[name] = absorption_heights(torch.cat(answers, dim=1))
    return scores


def absorption_heights(vectors: Tensor, linkage: str = "average") -> Tensor:
    """For each of [n, d] vectors the cosine distance at which it is absorbed in the dendrogram.

    Heights rise from 0 (parallel) over 1 (at right angles) to 2 (opposite). When two clusters
    merge, the one whose longest vector is shorter (of equal ones that of the lower index) is
    absorbed; the last survivor gets infinity. A vector of zeros points nowhere and gets 0. Float64,
    on the CPU.
    Raises PruningError for an unknown linkage.
    """
    heights = torch.zeros(len(vectors), dtype=torch.float64)
    pointing = torch.linalg.vector_norm(vectors.detach().cpu().double(), dim=1) > 0
    heights[pointing] = math.inf  # unless it is absorbed
    for gone, _, height in merges(vectors, linkage):
        heights[gone] = height
    return heights


def merges(vectors: Tensor, linkage: str = "average") -> list[Merge]:
    """The merges of the dendrogram of [n, d] vectors, the nearest clusters first.

    A cluster has the number of its longest vector. Vectors of zeros aren't among them.
    Raises PruningError for an unknown linkage.
    """
    if linkage not in LINKAGES:
        raise PruningError(f"linkage={linkage!r} is unknown: choose {' or '.join(LINKAGES)}.")
    vectors = vectors.detach().cpu().double()
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    pointing = lengths.nonzero().flatten()
    directions = vectors[pointing] / lengths[pointing, None]
    distances = (1 - directions @ directions.T).clamp_min_(0)
    numbers = pointing.tolist()
    return [
        (numbers[gone], numbers[stays], height)
        for gone, stays, height in _merged(distances, lengths[pointing], linkage)
    ]


def _merged(distances: Tensor, lengths: Tensor, linkage: str) -> Iterator[Merge]:
    """Merge the two nearest clusters until one is left; a cluster stands in its survivor's row.

    `distances` [n, n] is used up. Each row's nearest is remembered: with these linkages a merged
    cluster is never nearer to a third one than the nearer of its parts was, so only rows whose
    nearest was one of the two must look again, and the whole takes about n² steps, not n³.
    """
    count = len(distances)
    sizes = torch.ones(count, dtype=torch.float64)
    if count == 0:
        return
    distances.fill_diagonal_(math.inf)
    nearest, partner = distances.min(dim=1)
    for _ in range(count - 1):
        first = int(nearest.argmin())
        second = int(partner[first])
        # Tuples compare from the left: of equally long ones the higher index stays.
        gone, stays = sorted((first, second), key=lambda i: (float(lengths[i]), i))
        yield gone, stays, float(nearest[first])
        if linkage == "average":
            share = sizes[gone] / (sizes[gone] + sizes[stays])
            merged = share * distances[gone] + (1 - share) * distances[stays]
        else:
            merged = torch.maximum(distances[gone], distances[stays])
        sizes[stays] += sizes[gone]
        merged[stays] = math.inf
        distances[stays], distances[:, stays] = merged, merged
        distances[gone], distances[:, gone] = math.inf, math.inf
        stale = (partner == gone) | (partner == stays)
        stale[stays] = True
        nearest[stale], partner[stale] = distances[stale].min(dim=1)
        nearest[gone] = math.inf
