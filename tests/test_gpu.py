"""The CPU and a CUDA device agree; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from tiny import TINY, tiny_data

from course_lib.iterate import iterate
from course_lib.pruning import CRITERIA, find_groups, masked, prune, select
from course_lib.resnet import ResNet, resnet_config
from course_lib.training import place

pytestmark = pytest.mark.gpu


@pytest.fixture
def networks() -> tuple[ResNet, torch.nn.Module]:
    torch.manual_seed(0)
    network = ResNet(resnet_config(18, 10, base_width=8)).eval()
    there = ResNet(resnet_config(18, 10, base_width=8)).eval()
    there.load_state_dict(network.state_dict())
    return network, place(there, torch.device("cuda"))


# What the devices round differently: nothing of the weights, but what networks compute (TF32).
TOLERANCES = {"apoz": 2e-2, "taylor": 5e-2, "fisher": 5e-2, "obd": 5e-2}


# critical counts right answers: one that rounding turns over moves ranks.
@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"random", "critical"}))
def test_scores_and_plans_agree(networks, criterion):
    here, there = networks
    example = torch.zeros(1, 3, 64, 64)
    groups = find_groups(here, example)
    assert find_groups(there, example.cuda()) == groups
    batches = [(torch.randn(8, 3, 64, 64), torch.arange(8))]
    mine, theirs = (
        CRITERIA[criterion](network, groups, batches, generator=torch.Generator().manual_seed(1))
        for network in networks
    )
    for name in groups:
        rest = mine[name].isfinite()
        assert torch.equal(theirs[name].isfinite(), rest)
        error = (theirs[name] - mine[name])[rest].abs().max()
        assert error <= TOLERANCES.get(criterion, 1e-5) * mine[name][rest].abs().max()
    if criterion not in TOLERANCES:
        plans = [select(scores, fraction=0.3) for scores in (mine, theirs)]
        assert all(torch.equal(plans[0][name], plans[1][name]) for name in groups)


def test_surgery_agrees_and_stays_on_the_device(networks):
    here, there = networks
    groups = find_groups(here, torch.zeros(1, 3, 64, 64))
    keep = select(CRITERIA["l1"](here, groups), fraction=0.4)
    images = torch.randn(4, 3, 64, 64)
    narrow = prune(there, groups, keep)
    assert {parameter.device.type for parameter in narrow.parameters()} == {"cuda"}
    with torch.no_grad(), masked(there, groups, keep):
        wide = there(images.cuda())
    with torch.no_grad():
        torch.testing.assert_close(narrow(images.cuda()), wide, rtol=1e-3, atol=1e-3)
        expected = prune(here, groups, keep)(images)
        torch.testing.assert_close(narrow(images.cuda()).cpu(), expected, rtol=1e-2, atol=1e-2)


def test_the_loop_runs_there(tmp_path):
    state = iterate(TINY, tiny_data(), tmp_path, torch.device("cuda"), progress=False)
    assert [line["round"] for line in state.history] == [0, 1, 2, 3]
    assert state.history[0]["val_accuracy"] > 0.8
