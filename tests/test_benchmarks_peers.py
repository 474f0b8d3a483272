"""Smoke tests of the comparison with Torch-Pruning and of the frontier, on tiny networks."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import frontier
import pytest
import torch

from course_lib.measure import count_macs, count_parameters
from course_lib.resnet import ResNet, resnet_config

IMAGE = (3, 32, 32)


@pytest.fixture
def network() -> ResNet:
    torch.manual_seed(0)
    config = resnet_config(18, 10, base_width=16, small_images=True, projection="needed")
    return ResNet(config).eval()


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(16, *IMAGE), torch.randint(0, 10, (16,)))]


def peers(name: str) -> Any:
    pytest.importorskip(
        "torch_pruning", reason="needs Torch-Pruning: pip install -r benchmarks/requirements.txt"
    )
    return importlib.import_module(name)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_the_frontiers_cut_keeps_to_its_share(network, share):
    small = frontier.cut(network, share, IMAGE)
    assert 0.8 * share < count_parameters(small) / count_parameters(network) <= share


def test_the_frontier_is_longer_where_its_goal_is():
    vehicles, other = (frontier.sizes(SimpleNamespace(name=name)) for name in ("vehicles", "other"))
    assert vehicles[: len(other)] == other and vehicles[len(other) :] == list(frontier.LONGER)
    assert len(set(vehicles)) == len(vehicles)


def test_both_sides_reach_the_same_target(network, batches):
    ours, theirs = peers("against_torch_pruning"), peers("peer")
    target = count_macs(network, IMAGE) / 2
    for name in ours.OURS:
        narrow = ours.prune_to(name, network, target, batches, seed=0)
        assert 0.8 * target < count_macs(narrow, IMAGE) <= target, name
    for name in ("magnitude", "Taylor"):  # trained scales are what the others tell apart
        narrow = theirs.prune_to(name, network, target, torch.zeros(1, *IMAGE), batches)
        assert 0.6 * target < count_macs(narrow, IMAGE) <= target, name
        assert narrow(batches[0][0]).shape == (16, 10)
    assert network(batches[0][0]).shape == (16, 10)


def test_a_recipe_is_changed_one_thing_at_a_time_and_the_best_is_kept():
    recipes = peers("recipes")
    worth = {"distill": 0.5, "rate": {0.05: -0.1, 0.1: 0, 0.2: 0.2}, "cuts": {1: 0, 3: -0.3}}
    tried = []

    def result(recipe, fewer, seed, final):
        assert (fewer, seed, final) == (4, 0, False)
        tried.append(recipe)
        value = worth["distill"] * recipe.distill + worth["rate"][recipe.rate]
        return {"val_accuracy": value + worth["cuts"][recipe.cuts] - (recipe.pruner == "b")}

    found = list(recipes.trials(SimpleNamespace(result=result), "ours", ["a", "b"]))
    assert [recipe for recipe, _ in found] == tried and len(tried) == 6
    best = max(found, key=lambda pair: pair[1])[0]
    assert (best.pruner, best.distill, best.rate, best.cuts) == ("a", True, 0.2, 1)


def test_pruners_are_ranked_by_validation():
    recipes = peers("recipes")
    rows = [
        {"side": "ours", "pruner": "a", "val_accuracy": 0.5},
        {"side": "ours", "pruner": "a", "val_accuracy": 0.7},
        {"side": "ours", "pruner": "b", "val_accuracy": 0.65},
        {"side": "theirs", "pruner": "c", "val_accuracy": 0.9},
    ]
    assert recipes.ranking(rows, "ours") == ["b", "a"]
