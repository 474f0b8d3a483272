"""Whether layers are what they seem: with weights of their own, no hooks, and seen by tracing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from .layers import PER_CHANNEL_MODULES, WEIGHTED
from .tracing import NOT_STRICT, PruningError, called_in_training


def require_plain(network: nn.Module, bound: Mapping[str, str]) -> None:
    """Raise PruningError where a layer computes something else than layers of its kind do."""
    for name, module in network.named_modules():
        if name in bound or not isinstance(module, (*WEIGHTED, *PER_CHANNEL_MODULES)):
            continue  # what a hook on a block does is traced
        if "forward" in vars(module):
            raise PruningError(
                f"{name} has a forward of its own, which can't be looked into: delete it."
            )
        if isinstance(module, nn.modules.lazy.LazyModuleMixin):
            raise PruningError(f"{name} doesn't know its widths yet: run the network once first.")
        if module._forward_hooks or module._forward_pre_hooks:
            raise PruningError(
                f"{name} has a hook, which may change what it reads or makes: take it off with its "
                "handle's remove(), and register it again on the pruned network."
            )


def require_called(network: nn.Module, calls: Mapping[str, int]) -> None:
    """Raise PruningError for a layer that is called in training alone, such as an auxiliary head's:
    what it reads isn't known, so it would no longer fit.
    """
    layers = {name for name, module in network.named_modules() if isinstance(module, WEIGHTED)}
    unseen = layers - calls.keys()
    alone = sorted(unseen & called_in_training(network)) if unseen else []
    if alone:
        raise PruningError(
            f"{alone[0]} isn't called in evaluation, but in training it is or may be, so what it "
            f"reads isn't known: set it to None first.{NOT_STRICT}"
        )


def bound_weights(network: nn.Module) -> dict[str, str]:
    """Layers whose weights can't be sliced, and why: other layers share them, or they are computed
    from other tensors.
    """
    found: dict[str, str] = {}
    seen: dict[int, str] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        first = seen.setdefault(id(parameter), name)
        if first != name:
            why = (
                f"{name} and {first} are the same weights: "
                "filters shared by two layers can't be pruned."
            )
            for tensor in (first, name):
                found.setdefault(tensor.rpartition(".")[0], why)
    for name, module in network.named_modules():
        if not isinstance(module, WEIGHTED):
            continue
        computed = {"weight", "bias"} - module._parameters.keys()
        if computed:
            found[name] = (
                f"{name} computes its {min(computed)} from other tensors (weight norm, a mask): "
                "make it a plain parameter."
            )
    return found
