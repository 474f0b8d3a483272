"""From scores to the indices that stay.

First how many each group keeps is settled, then its best that many are kept. Li et al. 2016 (arXiv
1608.08710) rank within each layer; ranking across the network needs scores that can be compared
between layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .groups import PruningError

SCOPES = ("layer", "network")
CAP = 0.2


def select(
    scores: Mapping[str, Tensor],
    *,
    fraction: float | None = None,
    threshold: float | None = None,
    scope: str = "layer",
    start: Mapping[str, int] | None = None,
    round: int = 1,
    floor: int = 1,
    cap: float = CAP,
    multiple: int = 1,
    normalise: bool = True,
    cost: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """Choose the indices that stay: {group name: sorted 1-D long tensor}.

    Exactly one of
    `fraction`: the share removed per round; after `round` rounds a group that started with n₀
    indices (`start`; today's sizes if not given) keeps n₀(1 − fraction)^round of them, counted from
    the start so that small groups neither stall nor drift; across the network the same holds for
    the sum over all groups;
    `threshold`: indices that score below it go.

    `scope`: "layer" ranks within each group, "network" all indices together; then scores are
    divided by their group's mean size (unless `normalise` is False) and the `cost` of an index of
    that group (MACs, milliseconds), and no group loses more than `cap` of its indices at once, for
    a threshold either, so a larger `fraction` is refused. `floor`: what every group keeps at least.
    `multiple`: how many indices stay is rounded up to it. Where scores are equal the lower index
    goes first.
    Raises PruningError for values that make no sense, and for scores that are NaN.
    """
    _check(scores, fraction, threshold, scope, start, round, floor, cap, multiple, cost)
    ranks = {name: score.cpu().double() for name, score in scores.items()}
    if scope == "network":
        ranks = {name: _comparable(name, s, normalise, cost) for name, s in ranks.items()}
    sizes = {name: len(rank) for name, rank in ranks.items()}
    if threshold is not None:
        counts = {name: int((rank >= threshold).sum()) for name, rank in ranks.items()}
        if scope == "network":
            counts = {
                name: max(count, _least(sizes[name], floor, cap)) for name, count in counts.items()
            }
    else:
        assert fraction is not None
        left = (1 - fraction) ** round
        if scope == "layer":
            counts = {name: _rounded(left * (start or sizes)[name]) for name in sizes}
        else:
            target = _rounded(left * sum((start or sizes)[name] for name in sizes))
            counts = _network_counts(ranks, sum(sizes.values()) - target, floor, cap)
    return {
        name: _best(rank, math.ceil(max(floor, counts[name]) / multiple) * multiple)
        for name, rank in ranks.items()
    }


def _rounded(x: float) -> int:
    return math.floor(
        x + 0.5
    )  # half up: Python's own round() would make 2.5 filters 2 and 3.5 filters 4


def _best(rank: Tensor, count: int) -> Tensor:
    """The indices of the `count` largest, or all if there are fewer, in rising order."""
    order = torch.argsort(rank, stable=True)
    return order[max(0, len(rank) - count) :].sort().values


def _comparable(
    name: str, score: Tensor, normalise: bool, cost: Mapping[str, float] | None
) -> Tensor:
    """Scores to rank against other groups': relative to the group's mean, per unit of cost."""
    if normalise:
        finite = score[score.isfinite()]
        mean = finite.abs().mean() if len(finite) else torch.tensor(1.0)
        score = score / mean.clamp_min(torch.finfo(score.dtype).tiny)
    return score if cost is None else score / cost[name]


def _least(size: int, floor: int, cap: float) -> int:
    """How many of its indices a group keeps at least in one round across the network."""
    return min(size, max(floor, size - math.floor(cap * size)))


def _network_counts(
    ranks: Mapping[str, Tensor], remove: int, floor: int, cap: float
) -> dict[str, int]:
    """How many indices each group keeps when the smallest of all go that may go."""
    names = list(ranks)
    candidates, owners = [], []
    for number, name in enumerate(names):
        allowed = len(ranks[name]) - _least(len(ranks[name]), floor, cap)
        candidates.append(ranks[name].sort(stable=True).values[:allowed])
        owners.append(torch.full((allowed,), number))
    smallest = torch.cat(candidates).argsort(stable=True)[: max(0, remove)]
    lost = torch.cat(owners)[smallest].bincount(minlength=len(names))
    return {name: len(ranks[name]) - int(lost[number]) for number, name in enumerate(names)}


def _check(
    scores: Mapping[str, Tensor],
    fraction: float | None,
    threshold: float | None,
    scope: str,
    start: Mapping[str, int] | None,
    round: int,
    floor: int,
    cap: float,
    multiple: int,
    cost: Mapping[str, float] | None,
) -> None:
    def refuse(what: str) -> None:
        raise PruningError(f"select: {what}.")

    if (fraction is None) == (threshold is None):
        refuse("give either fraction or threshold, not both or neither")
    if fraction is not None and not 0 <= fraction < 1:
        refuse(f"fraction={fraction} must be at least 0 and less than 1")
    if threshold is not None and math.isnan(threshold):
        refuse("threshold is NaN: give a number")
    if scope not in SCOPES:
        refuse(f'scope={scope!r} must be "layer" or "network"')
    if not scores:
        refuse("there are no scores: the network has no filters that can be removed")
    missing = [name for name in scores if start is not None and name not in start]
    if missing:
        refuse(f"start doesn't say how many indices {missing[0]} began with")
    if round < 1 or floor < 1 or multiple < 1:
        refuse("round, floor and multiple must be 1 or more")
    if not 0 < cap <= 1:
        refuse(f"cap={cap} must be more than 0 and at most 1")
    if scope == "network" and fraction is not None and fraction > cap:
        refuse(f"a fraction of {fraction} needs a cap of as much, not {cap}, across the network")
    if cost is not None and scope == "layer":
        refuse('cost only matters with scope="network": within a layer every index costs the same')
    if cost is not None and not all(cost.get(name, 0) > 0 for name in scores):
        refuse("cost must be more than 0 for every group")
    for name, score in scores.items():
        if score.dim() != 1 or not len(score):
            refuse(f"the scores of {name} must be a 1-D tensor with one number per index")
        if score.isnan().any():
            refuse(f"{name} has a score that is NaN: check the criterion and the weights")
        if cost is not None and (score < 0).any():
            refuse(f"{name} has a score below 0, which can't be weighed by a cost: leave cost out")
