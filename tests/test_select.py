"""Selection against tables worked by hand, a slow version, and what must always hold."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from course_lib.pruning import PruningError, select

INF = math.inf


def kept(scores: dict[str, list[float]], **options) -> dict[str, list[int]]:
    plan = select({name: torch.tensor(values) for name, values in scores.items()}, **options)
    assert all(indices.dtype == torch.long for indices in plan.values())
    return {name: indices.tolist() for name, indices in plan.items()}


A = [5.0, 1.0, 4.0, 2.0, 3.0]  # in rising order: 1, 3, 4, 2, 0
B = [0.1, 0.4, 0.2, 0.3]  # in rising order: 0, 2, 3, 1

BY_HAND = [
    # Within each layer: 5(1 − 0.4) = 3 and 4(1 − 0.4) = 2.4 → 2 stay.
    ({"fraction": 0.4}, [0, 2, 4], [1, 3]),
    ({"fraction": 0.0}, [0, 1, 2, 3, 4], [0, 1, 2, 3]),
    # 5 · 0.9 = 4.5 rounds up to 5; 4 · 0.9 = 3.6 → 4.
    ({"fraction": 0.1}, [0, 1, 2, 3, 4], [0, 1, 2, 3]),
    # Two rounds of 10 % from 5 and 4: 4.05 → 4 and 3.24 → 3.
    ({"fraction": 0.1, "round": 2}, [0, 2, 3, 4], [1, 2, 3]),
    # Third round of a layer that began with 8 and has 5: 8 · 0.9³ = 5.8 → 6, more than there are.
    ({"fraction": 0.1, "round": 3, "start": {"a": 8, "b": 4}}, [0, 1, 2, 3, 4], [1, 2, 3]),
    ({"fraction": 0.99}, [0], [1]),
    ({"fraction": 0.99, "floor": 2}, [0, 2], [1, 3]),
    ({"fraction": 0.99, "floor": 5}, [0, 1, 2, 3, 4], [0, 1, 2, 3]),
    # 3 and 2 stay; rounded up to a multiple of 2: 4 and 2; of 4: 4 and 4; of 8: all there are.
    ({"fraction": 0.4, "multiple": 2}, [0, 2, 3, 4], [1, 3]),
    ({"fraction": 0.4, "multiple": 4}, [0, 2, 3, 4], [0, 1, 2, 3]),
    ({"fraction": 0.4, "multiple": 8}, [0, 1, 2, 3, 4], [0, 1, 2, 3]),
    ({"threshold": 3.0}, [0, 2, 4], [1]),  # 3 itself isn't below 3; b keeps its floor
    ({"threshold": 0.2}, [0, 1, 2, 3, 4], [1, 2, 3]),
    # Across the network, raw: 9 · 0.6 = 5.4 → 5 stay, 4 go; b has the 4 smallest, and its floor.
    (
        {"fraction": 0.4, "scope": "network", "normalise": False, "cap": 1.0},
        [0, 2, 3, 4],
        [1],
    ),
    # … capped: b loses at most half, so a loses 2.
    ({"fraction": 0.4, "scope": "network", "normalise": False, "cap": 0.5}, [0, 2, 4], [1, 3]),
    # By the mean: a/3 is 1.67 .33 1.33 .67 1; b/.25 is .4 1.6 .8 1.2. The 4 smallest: .33 .4 .67 .8
    ({"fraction": 0.4, "scope": "network", "cap": 1.0}, [0, 2, 4], [1, 3]),
    # a's indices cost ten times as much: .167 .033 .133 .067 .1 against .4 …: a loses 4.
    (
        {"fraction": 0.4, "scope": "network", "cap": 1.0, "cost": {"a": 10.0, "b": 1.0}},
        [0],
        [0, 1, 2, 3],
    ),
    # 5 · 0.2 = 1 of a may go and 4 · 0.2 → 0 of b, so 2 can't be reached.
    ({"fraction": 0.2, "scope": "network"}, [0, 2, 3, 4], [0, 1, 2, 3]),
    ({"threshold": 1.0, "scope": "network", "cap": 1.0}, [0, 2, 4], [1, 3]),
    ({"threshold": 1.3, "scope": "network", "cap": 0.5}, [0, 2, 4], [1, 3]),
    ({"threshold": 1.0, "scope": "network", "normalise": False, "cap": 1.0}, [0, 1, 2, 3, 4], [1]),
]


@pytest.mark.parametrize(("options", "a", "b"), BY_HAND)
def test_tables_worked_by_hand(options: dict, a: list[int], b: list[int]) -> None:
    assert kept({"a": A, "b": B}, **options) == {"a": a, "b": b}


def test_of_equal_scores_the_lower_index_goes_first() -> None:
    assert kept({"a": [1.0] * 5}, fraction=0.4) == {"a": [2, 3, 4]}
    assert kept({"a": [1.0, 0.0, 1.0, 0.0, 1.0]}, fraction=0.6) == {"a": [2, 4]}
    ones = {"a": [1.0] * 4, "b": [1.0] * 4}
    assert kept(ones, fraction=0.25, scope="network", cap=1.0) == {"a": [2, 3], "b": [0, 1, 2, 3]}


def test_infinite_scores_survive() -> None:
    scores = {"a": [INF, 1.0, 2.0, INF], "b": [3.0, INF, 5.0, 4.0]}
    assert kept(scores, fraction=0.5) == {"a": [0, 3], "b": [1, 2]}
    assert kept(scores, threshold=1e9) == {"a": [0, 3], "b": [1]}
    # By the finite means, 1.5 and 4: a is ∞ .67 1.33 ∞ and b is .75 ∞ 1.25 1; 4 of 8 go.
    assert kept(scores, fraction=0.5, scope="network", cap=1.0) == {"a": [0, 2, 3], "b": [1]}
    only = {"a": [INF, INF], "b": [1.0, 2.0]}
    assert kept(only, fraction=0.25, scope="network", cap=1.0) == {"a": [0, 1], "b": [1]}


@pytest.mark.parametrize("start", [64, 128, 256, 512])
def test_sixteen_rounds_of_five_percent_follow_the_power(start: int) -> None:
    generator = torch.Generator().manual_seed(start)
    size = start
    for round in range(1, 17):
        scores = {"a": torch.rand(size, generator=generator)}
        size = len(select(scores, fraction=0.05, round=round, start={"a": start})["a"])
        exact = start * Fraction(95, 100) ** round
        assert abs(size - exact) <= Fraction(1, 2)
    assert size == {64: 28, 128: 56, 256: 113, 512: 225}[start]  # n · 0.4401


groups = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.lists(
        st.sampled_from([0.0, 0.5, 1.0, 2.0, INF]) | st.floats(0, 100), min_size=1, max_size=24
    ),
    min_size=1,
)
fractions, rounds = st.floats(0, 0.95), st.integers(1, 20)
floors, multiples = st.integers(1, 5), st.sampled_from([1, 2, 4, 8])
caps = st.floats(0.01, 1)


def assert_valid(plan: dict[str, Tensor], scores: dict[str, Tensor]) -> None:
    assert list(plan) == list(scores)
    for name, indices in plan.items():
        assert len(indices) >= 1 and (indices.diff() > 0).all()
        assert indices[0] >= 0 and indices[-1] < len(scores[name])
        gone = torch.ones(len(scores[name]), dtype=torch.bool)
        gone[indices] = False
        if gone.any():
            assert scores[name][gone].max() <= scores[name][indices].min()


def tensors(values: dict[str, list[float]]) -> dict[str, Tensor]:
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}


@given(groups, fractions, rounds, floors, multiples, st.integers(0, 30))
def test_within_each_layer(values, fraction, round, floor, multiple, gone_before) -> None:
    scores = tensors(values)
    start = {name: len(v) + gone_before for name, v in scores.items()}
    options = {"fraction": fraction, "floor": floor, "multiple": multiple, "start": start}
    plan = select(scores, round=round, **options)
    assert_valid(plan, scores)
    for name, indices in plan.items():
        count = max(floor, math.floor(start[name] * (1 - fraction) ** round + 0.5))
        count += -count % multiple
        assert len(indices) == min(count, len(scores[name]))
    later = select(scores, round=round + 1, **options)
    assert all(set(later[name].tolist()) <= set(plan[name].tolist()) for name in scores)


def slow_network(
    values: dict[str, list[float]], remove: int, floor: int, cap: float
) -> dict[str, set[int]]:
    """Take away the smallest index that may still go, one at a time."""
    left = {name: set(range(len(v))) for name, v in values.items()}
    for _ in range(remove):
        candidates = [
            (values[name][index], number, index, name)
            for number, name in enumerate(values)
            for index in left[name]
            if len(left[name]) > floor
            and len(values[name]) - len(left[name]) + 1 <= cap * len(values[name])
        ]
        if candidates:
            *_, index, name = min(candidates)
            left[name].remove(index)
    return left


@given(groups, fractions, floors, caps)
def test_across_the_network_against_the_slow_version(values, fraction, floor, cap) -> None:
    scores, fraction = tensors(values), min(fraction, cap)
    plan = select(scores, fraction=fraction, scope="network", normalise=False, floor=floor, cap=cap)
    assert_valid(plan, scores)
    total = sum(map(len, values.values()))
    remove = total - math.floor(total * (1 - fraction) + 0.5)
    expected = slow_network(values, remove, floor, cap)
    assert {name: set(indices.tolist()) for name, indices in plan.items()} == expected
    assert sum(map(len, plan.values())) >= total - remove


@given(groups, fractions, floors, caps, multiples, st.booleans())
def test_across_the_network_limits_hold(values, fraction, floor, cap, multiple, normalise) -> None:
    scores = tensors(values)
    options = {"scope": "network", "normalise": normalise, "floor": floor, "cap": cap}
    for how in ({"fraction": min(fraction, cap)}, {"threshold": 50 * fraction}):
        plan = select(scores, multiple=multiple, **how, **options)
        assert_valid(plan, scores)
        for name, indices in plan.items():
            size = len(scores[name])
            assert len(indices) >= min(size, floor)
            assert size - len(indices) <= cap * size
            assert len(indices) % multiple == 0 or len(indices) == size


@given(groups, st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(0, 100), floors)
def test_a_threshold_is_exact(values, threshold, floor) -> None:
    scores = tensors(values)
    plan = select(scores, threshold=threshold, floor=floor)
    assert_valid(plan, scores)
    for name, indices in plan.items():
        above = [i for i, score in enumerate(values[name]) if score >= threshold]
        if len(above) >= floor:
            assert indices.tolist() == above
        else:
            assert len(indices) == min(floor, len(values[name]))
            assert set(above) <= set(indices.tolist())


@given(groups, fractions, st.integers(-8, 8))
def test_normalised_scores_do_not_depend_on_a_layers_scale(values, fraction, power) -> None:
    scores = tensors(values)
    # Powers of two scale without rounding, so ties stay ties.
    factors = {"a": 1.0, "b": 2.0**power, "c": 4.0**power}
    scaled = {name: score * factors[name] for name, score in scores.items()}
    options = {"fraction": fraction, "scope": "network", "cap": 1.0}
    plan, again = select(scores, **options), select(scaled, **options)
    assert all(torch.equal(plan[name], again[name]) for name in scores)


GOOD = {"a": torch.tensor([1.0, 2.0])}


@pytest.mark.parametrize(
    ("scores", "options", "says"),
    [
        (GOOD, {}, "either fraction or threshold"),
        (GOOD, {"fraction": 0.1, "threshold": 1.0}, "either fraction or threshold"),
        (GOOD, {"fraction": 1.0}, "fraction=1.0"),
        (GOOD, {"fraction": -0.1}, "fraction=-0.1"),
        (GOOD, {"fraction": math.nan}, "fraction=nan"),
        (GOOD, {"threshold": math.nan}, "threshold is NaN"),
        (GOOD, {"fraction": 0.1, "scope": "block"}, "scope='block'"),
        (GOOD, {"fraction": 0.1, "round": 0}, "1 or more"),
        (GOOD, {"fraction": 0.1, "floor": 0}, "1 or more"),
        (GOOD, {"fraction": 0.1, "multiple": 0}, "1 or more"),
        (GOOD, {"fraction": 0.1, "cap": 0.0}, "cap=0.0"),
        (GOOD, {"fraction": 0.1, "cap": 1.1}, "cap=1.1"),
        (GOOD, {"fraction": 0.1, "cost": {"a": 1.0}}, 'scope="network"'),
        (GOOD, {"fraction": 0.3, "scope": "network"}, "of 0.3 needs a cap of as much, not 0.2"),
        (GOOD, {"fraction": 0.1, "scope": "network", "cost": {"b": 1.0}}, "every group"),
        (GOOD, {"fraction": 0.1, "scope": "network", "cost": {"a": 0.0}}, "more than 0"),
        (GOOD, {"fraction": 0.1, "scope": "network", "cost": {"a": math.nan}}, "more than 0"),
        (GOOD, {"fraction": 0.1, "start": {"b": 4}}, "how many indices a began"),
        ({"a": -GOOD["a"]}, {"fraction": 0.1, "scope": "network", "cost": {"a": 1.0}}, "below 0"),
        ({}, {"fraction": 0.1}, "no scores"),
        ({}, {"fraction": 0.1, "scope": "network"}, "no scores"),
        ({"a": torch.tensor([1.0, math.nan])}, {"fraction": 0.1}, "a has a score that is NaN"),
        ({"a": torch.ones(2, 2)}, {"fraction": 0.1}, "scores of a must be"),
        ({"a": torch.ones(0)}, {"fraction": 0.1}, "scores of a must be"),
    ],
)
def test_what_makes_no_sense_is_refused(scores: dict, options: dict, says: str) -> None:
    with pytest.raises(PruningError, match=r"^select: ") as caught:
        select(scores, **options)
    assert says in str(caught.value)


def test_negative_scores_keep_their_order() -> None:
    ranks = {"a": [-1.0, -8.0, -3.0, -2.0]}  # minus the best rank for any class
    assert kept(ranks, threshold=-2.0) == {"a": [0, 3]}
    assert kept(ranks, fraction=0.5, scope="network", cap=1.0) == {"a": [0, 3]}


def test_the_scores_are_not_changed() -> None:
    scores = {"a": torch.tensor([3.0, 1.0, 2.0])}
    select(scores, fraction=0.5, scope="network", cap=0.5, cost={"a": 2.0})
    assert scores["a"].tolist() == [3.0, 1.0, 2.0]


def test_scores_on_a_device_without_float64() -> None:
    """Apple's GPUs have none: scores have to come to the CPU before they become double."""

    class OnDevice(torch.Tensor):
        def double(self) -> torch.Tensor:
            raise TypeError("this device has no float64")

        def cpu(self) -> torch.Tensor:
            return self.as_subclass(torch.Tensor)

    scores = {"a": torch.tensor([3.0, 1.0, 2.0]).as_subclass(OnDevice)}
    assert select(scores, fraction=0.34)["a"].tolist() == [0, 2]
