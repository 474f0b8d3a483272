"""Cosine redundancy against SciPy's clustering, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import randomise
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor, nn

from course_lib.pruning import PruningError, cosine, cosine_outputs, find_groups, select
from course_lib.pruning.criteria.cosine import LINKAGES, absorption_heights
from course_lib.pruning.criteria.weights import filters_of
from course_lib.resnet import ResNet, resnet_config


def drawn(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)).double()


sizes, seeds = st.integers(2, 12), st.integers(0, 2**32 - 1)


@given(sizes, st.integers(1, 5), seeds, st.sampled_from(LINKAGES))
def test_heights_are_scipys(count: int, width: int, seed: int, method: str) -> None:
    vectors = drawn(count, width + 1, seed)
    heights = absorption_heights(vectors, method)
    assert heights.isinf().sum() == 1
    expected = linkage(vectors.numpy(), method=method, metric="cosine")[:, 2]
    found = heights[heights.isfinite()].sort().values.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@given(sizes, st.integers(1, 4), seeds, st.sampled_from(LINKAGES), st.floats(0, 2))
def test_a_threshold_keeps_one_of_each_cluster(
    count: int, width: int, seed: int, method: str, cut: float
) -> None:
    """And that one is the longest vector of its cluster."""
    vectors = drawn(count, width + 1, seed)
    heights = absorption_heights(vectors, method)
    if (heights - cut).abs().min() < 1e-9:
        return  # a threshold beside a merge: rounding decides
    clusters = fcluster(linkage(vectors.numpy(), method, "cosine"), cut, criterion="distance")
    kept = select({"layer": heights}, threshold=cut)["layer"].tolist()
    lengths = vectors.norm(dim=1)
    longest = []
    for cluster in set(clusters):
        members = [index for index in range(count) if clusters[index] == cluster]
        longest.append(max(members, key=lambda index: lengths[index]))
    assert kept == sorted(longest)


def unit(degrees: float, length: float = 1.0) -> list[float]:
    angle = math.radians(degrees)
    return [length * math.cos(angle), length * math.sin(angle)]


def distance(degrees: float) -> float:
    return 1 - math.cos(math.radians(degrees))


@pytest.mark.parametrize("method", LINKAGES)
def test_three_directions_worked_by_hand(method: str) -> None:
    """At 0°, 20° and 90°. The first two merge, the longer one stays; at last the longest stays."""
    vectors = torch.tensor([unit(0, 2), unit(20, 1), unit(90, 3)])
    far = (distance(90) + distance(70)) / 2 if method == "average" else distance(90)
    expected = [far, distance(20), math.inf]
    assert absorption_heights(vectors, method).tolist() == pytest.approx(expected, abs=1e-6)


def test_of_twins_one_stays() -> None:
    """The one of the larger norm, of equals the later; two of three equal ones go together."""
    vectors = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 1, 0], [0, 2, 0], [0, 0, -1]])
    heights = absorption_heights(vectors)
    assert heights[[1, 2]].tolist() == [0, 0] and heights[3] > 0.9
    assert select({"layer": heights}, threshold=0.5)["layer"].tolist() == [0, 3, 4]


def test_opposite_filters_are_not_redundant() -> None:
    assert absorption_heights(torch.tensor([[1.0, 2], [-1, -2]])).tolist() == [2, math.inf]


def test_a_filter_of_zeros_goes_first() -> None:
    heights = absorption_heights(torch.tensor([[0.0, 0], [1, 0], [0, 1], [0, 0]]))
    assert heights.tolist() == [0, 1, math.inf, 0]
    assert absorption_heights(torch.zeros(3, 4)).tolist() == [0, 0, 0]
    assert absorption_heights(torch.ones(1, 4)).tolist() == [math.inf]


def test_the_length_of_a_filter_does_not_matter() -> None:
    """To where it is absorbed, that is; it matters to which of two is."""
    vectors = drawn(9, 4, 0)
    factors = torch.linspace(0.5, 2, 9).double()[:, None]
    heights = [absorption_heights(v).sort().values for v in (vectors, factors * vectors)]
    torch.testing.assert_close(heights[0], heights[1], rtol=1e-9, atol=1e-12)


def test_a_large_layer() -> None:
    vectors = drawn(256, 30, 1)
    heights = absorption_heights(vectors)
    expected = linkage(vectors.numpy(), "average", "cosine")[:, 2]
    np.testing.assert_allclose(heights.sort().values[:-1].numpy(), expected, rtol=1e-9)


def test_an_unknown_linkage_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))
    groups = find_groups(network, torch.zeros(1, 1, 4, 4))
    with pytest.raises(PruningError, match="linkage='single' is unknown: choose average or"):
        cosine(network, groups, linkage="single")


@pytest.mark.parametrize("projection", ["all", "needed"])
@pytest.mark.parametrize("method", LINKAGES)
def test_coupled_filters_are_taken_together(projection: str, method: str) -> None:
    network = ResNet(resnet_config(18, 3, base_width=6, projection=projection, small_images=True))
    randomise(network, seed=0)
    groups = find_groups(network, torch.zeros(1, 3, 16, 16))
    scores = cosine(network, groups, linkage=method)
    for name, group in groups.items():
        weights = filters_of(network, group).double().numpy()
        expected = linkage(weights, method, "cosine")[:, 2]
        found = scores[name].sort().values[:-1].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_outputs_under_random_inputs_estimate_the_cosine_of_the_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 2, 1))
    randomise(network, seed=1)
    network[0].weight.data[5] = 0.5 * network[0].weight.data[2]
    groups = find_groups(network, torch.zeros(1, 3, 8, 8))
    by_weights = cosine(network, groups)["0"]
    by_outputs = cosine_outputs(network, groups, generator=torch.Generator().manual_seed(0))["0"]
    assert by_weights[5] < 1e-6 and by_outputs[5] < 1e-6, "parallel filters always answer alike"
    found, expected = (h[h.isfinite()].sort().values for h in (by_outputs, by_weights))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.15)
    assert not torch.allclose(found, expected, rtol=0, atol=1e-3), "an estimate, not the same"


def test_outputs_include_the_bias() -> None:
    """Two filters that answer with the same large bias whatever they see are redundant."""
    network = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    network[0].weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]) / 100
    groups = find_groups(network, torch.zeros(1, 4))
    generator = torch.Generator().manual_seed(0)
    assert cosine(network, groups)["0"][0] == 1
    network[0].bias.data = torch.tensor([1.0, 1])
    assert cosine_outputs(network, groups, generator=generator)["0"].min() < 1e-3
    network[0].bias.data = torch.tensor([1.0, -1])
    assert cosine_outputs(network, groups, generator=generator)["0"].min() > 1.99


def test_outputs_are_reproducible_by_their_generator_only() -> None:
    network = randomise(ResNet(resnet_config(18, 3, base_width=2)), seed=0)
    groups = find_groups(network, torch.zeros(1, 3, 32, 32))

    def score(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(
            list(cosine_outputs(network, groups, generator=generator).values())
        ).tolist()

    state = torch.random.get_rng_state()
    assert score(0) == score(0) != score(1)
    assert torch.equal(torch.random.get_rng_state(), state)
