"""Exercises of notebook 07: what a small network owes to the large one it was cut from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.lessons.compare import shown, tensors, whole
from course_lib.lessons.exercise import Case, Exercise, Mistake
from course_lib.lessons.prediction import Question
from course_lib.lessons.single_weights import SINGLE_WEIGHTS
from course_lib.tickets import equal_compute_batches, in_first_network, remember

State = Mapping[str, Tensor]


# 07.1: remember the initial weights (a bug hunt)


def _no_copies(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.state_dict())


def _parameters_only(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def _whole_network(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network)


def _networks() -> Iterable[Case]:
    line = nn.Linear(2, 1, bias=False)
    normed = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[0.5, -0.25]]))
        for parameter in normed.parameters():
            parameter.fill_(0.5)
    return [(line,), (normed,)]


def _remembered_after_a_step(answer: Callable[..., Any], case: Case) -> Any:
    """What is remembered of a network once it has been trained on."""
    (network,) = case
    state = answer(network)
    network.train()
    network(torch.tensor([[1.0, 2.0], [3.0, 5.0]])).sum().backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    if isinstance(state, nn.Module):  # no two networks are the same to a comparison
        return f"{shown(state)}, not a dictionary"
    return dict(state) if isinstance(state, Mapping) else state


# 07.2: indices of two rounds, as the first network numbers them


def _later_numbers(first: State, then: State) -> dict[str, Tensor]:
    return dict(then)


def _in_both(first: State, then: State) -> dict[str, Tensor]:
    return {name: kept[torch.isin(kept, then[name])] for name, kept in first.items()}


def _other_way(first: State, then: State) -> dict[str, Tensor]:
    return {name: then[name][kept] for name, kept in first.items()}


def _rounds_of_pruning() -> Iterable[Case]:
    return [
        ({"stem": torch.tensor([1, 2, 5, 7])}, {"stem": torch.tensor([0, 2, 3])}),
        (
            {"a": torch.tensor([0, 3, 4]), "b": torch.tensor([2, 4, 5, 6])},
            {"a": torch.tensor([1, 2]), "b": torch.tensor([0, 2])},
        ),
    ]


# 07.3: as many batches as the compute pays for


def _same_batches(phases: Sequence[tuple[int, int]], macs: int) -> int:
    return sum(batches for batches, _ in phases)


def _base_only(phases: Sequence[tuple[int, int]], macs: int) -> int:
    return phases[0][0] * phases[0][1] // macs


def _mean_cost(phases: Sequence[tuple[int, int]], macs: int) -> int:
    batches, costs = zip(*phases, strict=True)
    return sum(batches) * sum(costs) // len(costs) // macs


def _rounded_up(phases: Sequence[tuple[int, int]], macs: int) -> int:
    return math.ceil(sum(batches * cost for batches, cost in phases) / macs)


def _phases() -> Iterable[Case]:
    longer = [(200, 2_000), (40, 1_500), (40, 1_100)]
    return [([(10, 9), (5, 4)], 3), (longer, 700), ([(7, 100)], 100)]


# 07.5: what three seeds say about two ways to train


def paired_difference(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float, float]:
    """Mean, smallest and largest of first − second, seed by seed."""
    differences = [one - other for one, other in zip(first, second, strict=True)]
    return sum(differences) / len(differences), min(differences), max(differences)


def _extremes_apart(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    mean = sum(first) / len(first) - sum(second) / len(second)
    return mean, min(first) - min(second), max(first) - max(second)


def _without_signs(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    return paired_difference(
        [abs(one - other) for one, other in zip(first, second, strict=True)], [0.0] * len(first)
    )


def _turned_round(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    return paired_difference(second, first)


def _seeds() -> Iterable[Case]:
    return [
        ([0.90, 0.84, 0.88], [0.86, 0.85, 0.81]),
        ([0.5, 0.75], [0.625, 0.25]),
        ([0.5, 0.25], [0.625, 0.75]),  # every seed says the second: both ends are negative
    ]


EXERCISES = (
    Exercise(
        "07.1",
        "the initial weights that weren't (a bug hunt)",
        remember,
        _networks,
        (
            Mistake(
                _parameters_only,
                "You kept the parameters, but a batch norm also has running statistics, which"
                " aren't parameters: the state dict has both.",
            ),
            Mistake(
                _whole_network,
                "You returned a network: return a dictionary of tensors by name, as"
                " load_state_dict takes it.",
            ),
        ),
        "What is kept no longer changes while the network trains.",
        use=_remembered_after_a_step,
        compare=tensors,
        handed_out=Mistake(
            _no_copies,
            "After one step of training, what was remembered has changed as well: does the"
            " dictionary hold numbers of its own?",
        ),
    ),
    Exercise(
        "07.2",
        "winners of two rounds",
        in_first_network,
        _rounds_of_pruning,
        (
            Mistake(
                _later_numbers,
                "You returned the second round's indices as they are: they count the survivors of"
                " the first round, not the filters of the first network.",
            ),
            Mistake(
                _in_both,
                "You kept the indices that occur in both lists, but the lists count different"
                " things: index 2 of the second names the third entry of the first.",
            ),
            Mistake(
                _other_way,
                "You looked up the first round's indices in the second's: it is the other way round"
                " — the second's say which entries of the first stay.",
            ),
        ),
        "Any number of rounds now becomes one cut of the first network.",
        compare=tensors,
    ),
    Exercise(
        "07.3",
        "as many batches as the compute pays for",
        equal_compute_batches,
        _phases,
        (
            Mistake(
                _same_batches,
                "You gave the small network the same number of batches: each costs it less, so for"
                " the same compute it gets more of them.",
            ),
            Mistake(
                _base_only,
                "You counted the first phase only: fine-tuning was compute as well.",
            ),
            Mistake(
                _mean_cost,
                "You multiplied all batches by the mean of the costs: a phase counts by how many"
                " batches it had.",
            ),
            Mistake(
                _rounded_up,
                "You rounded up: the compute doesn't pay for that last batch.",
            ),
        ),
        "Equal compute is now a number of batches.",
        compare=whole,
    ),
    SINGLE_WEIGHTS,
    Exercise(
        "07.5",
        "what the seeds agree on",
        paired_difference,
        _seeds,
        (
            Mistake(
                _extremes_apart,
                "You took the smallest and largest of each list by themselves: they may belong to"
                " different seeds. Subtract seed by seed first.",
            ),
            Mistake(
                _without_signs,
                "You took the sizes of the differences: then nobody can see that a seed points the"
                " other way.",
            ),
            Mistake(
                _turned_round,
                "You subtracted the first from the second: a positive number should mean that the"
                " first is better.",
            ),
        ),
        "If smallest and largest have one sign, every seed says the same.",
    ),
)

QUESTIONS = (
    Question(
        "07.p1",
        "Test accuracy of the small network from scratch, same number of batches",
    ),
    Question(
        "07.p2",
        "The best of three at 3 % of the weights, mean of the seeds",
        choices=("pruned", "ticket", "new weights"),
    ),
)
