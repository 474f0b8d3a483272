"""Surgery to a budget, against trying every fraction."""

from __future__ import annotations

import pytest
import torch

from course_lib.measure import count_macs, count_parameters
from course_lib.pruning import PruningError, find_groups, l2, prune, prune_until, select
from course_lib.resnet import ResNet, resnet_config

IMAGE = (3, 16, 16)


@pytest.fixture
def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet(resnet_config(18, 3, base_width=4, small_images=True, projection="needed"))


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("options", [{}, {"scope": "network", "cap": 0.9}])
def test_it_removes_as_little_as_makes_the_network_fit(network, share, options):
    groups = find_groups(network, torch.zeros(1, *IMAGE))
    scores = l2(network, groups)
    most = share * count_parameters(network)
    narrow, keep = prune_until(
        network, groups, scores, lambda found: count_parameters(found) <= most, **options
    )
    sizes = []
    for thousandth in range(1_000):
        plan = select(scores, fraction=thousandth / 1_000, **options)
        sizes.append(count_parameters(prune(network, groups, plan)))
        if sizes[-1] <= most:
            break
    assert sizes[-1] <= count_parameters(narrow) <= most < sizes[-2]
    images = torch.ones(2, *IMAGE)
    assert torch.equal(narrow(images), prune(network, groups, keep)(images))


def test_the_budget_may_be_of_multiply_accumulates(network):
    groups = find_groups(network, torch.zeros(1, *IMAGE))
    full = count_macs(network, IMAGE)
    narrow, _ = prune_until(
        network, groups, l2(network, groups), lambda found: count_macs(found, IMAGE) <= full / 4
    )
    assert 0.15 * full < count_macs(narrow, IMAGE) <= full / 4


def test_what_fits_already_stays_whole(network):
    groups = find_groups(network, torch.zeros(1, *IMAGE))
    narrow, keep = prune_until(network, groups, l2(network, groups), lambda _: True)
    assert count_parameters(narrow) == count_parameters(network)
    assert {name: len(kept) for name, kept in keep.items()} == {
        name: group.size for name, group in groups.items()
    }


def test_a_budget_that_cant_be_met_is_refused(network):
    groups = find_groups(network, torch.zeros(1, *IMAGE))
    with pytest.raises(PruningError, match="Not even the narrowest network"):
        prune_until(
            network,
            groups,
            l2(network, groups),
            lambda found: count_parameters(found) <= 1_000,
            floor=4,
        )


def test_across_the_network_the_cap_is_the_most_that_is_tried(network):
    groups = find_groups(network, torch.zeros(1, *IMAGE))
    scores, full = l2(network, groups), count_parameters(network)
    narrow, _ = prune_until(
        network,
        groups,
        scores,
        lambda found: count_parameters(found) <= 0.8 * full,
        scope="network",
    )
    assert 0.7 * full < count_parameters(narrow) <= 0.8 * full
    with pytest.raises(PruningError, match="raise cap"):
        prune_until(network, groups, scores, lambda found: False, scope="network")
