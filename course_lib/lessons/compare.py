"""Did the learner's function give what was expected? If not, how it differs, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.pruning import Group

LONGEST_SHOWN = 12  # numbers of a tensor that are still written out
RELATIVE, ABSOLUTE = 1e-4, 1e-6  # far above float32 rounding, far below any mistake


def shown(value: Any) -> str:
    """A value in one short line: small ones in full, large ones by type and shape. Never raises."""
    try:
        return _shown(value)
    except Exception:  # as a module whose __init__ forgot super().__init__() does
        return f"a {type(value).__name__} that can't be shown"


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        if value.numel() > LONGEST_SHOWN:
            return f"a tensor of shape {list(value.shape)}"
        if value.is_floating_point():
            return str(_rounded(value.detach().cpu().double().tolist()))
        return str(value.tolist())
    if isinstance(value, np.ndarray):
        if value.size > LONGEST_SHOWN:
            return f"an array of shape {list(value.shape)}"
        return str(_rounded(value.tolist()))
    if isinstance(value, nn.Module):
        count = sum(parameter.numel() for parameter in value.parameters())
        return f"{_a(value)} with {count:,} parameters"
    if isinstance(value, torch.optim.Optimizer):
        return f"an optimiser of type {type(value).__name__}"
    if isinstance(value, Group):  # its name is its key; written out, one fills six lines
        return "a Group"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(shown(item) for item in value) + ("," * (len(value) == 1)) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if callable(value):
        return f"the function {getattr(value, '__name__', type(value).__name__)}"
    text = str(_rounded(value)) if isinstance(value, float) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def difference(given: Any, expected: Any) -> str | None:
    """What tells `given` from `expected`, as a sentence; None if they are the same.

    Numbers may differ by rounding (relative 1e-4); a Python number, a numpy number and a tensor
    without dimensions with the same value are the same, and so are lists and tuples.
    """
    if isinstance(expected, nn.Module):
        return None if given is expected else "It gives another network than expected."
    if isinstance(expected, Mapping):
        return _mapping(given, expected)
    if isinstance(expected, str | bool) or expected is None:
        same = type(given) is type(expected) and given == expected
        same = same or (isinstance(expected, bool) and _as_bool(given) is expected)
        return None if same else f"It gives {shown(given)}."
    if isinstance(expected, Number | Tensor | np.ndarray):
        return _numbers(given, expected)
    if isinstance(expected, Sequence):
        return _sequence(given, expected)
    return None if given == expected else f"It gives {shown(given)}."


def tensors(given: Any, expected: Any) -> str | None:
    """As `difference`, but a tensor has to be given where one is expected, since the notebook goes
    on with it; in a tuple or dictionary, each by itself.
    """
    if isinstance(expected, Tensor) and type(given).__module__ == "torch.return_types":
        return (
            f"It gives all that torch's {type(given).__name__} returns: take its .values or its"
            " .indices."
        )
    if isinstance(expected, Tensor) and isinstance(given, Number | list | tuple | np.ndarray):
        return (
            f"It gives {_a(given)} where a tensor is expected: leave out .item(), float() or"
            " tolist(), or wrap it in torch.tensor(…)."
        )
    indices = isinstance(expected, Tensor) and expected.dtype == torch.int64
    if indices and isinstance(given, Tensor) and given.dtype != torch.int64:
        return (
            f"It gives numbers of {given.dtype} where indices are expected: those are torch.int64."
        )
    floats = isinstance(expected, Tensor) and expected.dtype == torch.float32
    if floats and isinstance(given, Tensor) and given.dtype != expected.dtype:
        return (
            f"It gives numbers of {given.dtype}, and the notebook goes on in {expected.dtype}:"
            f" add .to({expected.dtype}) at the end."
        )
    if isinstance(expected, tuple):
        if isinstance(given, Tensor | np.ndarray):
            count = len(expected)
            return f"It gives {_kind(given)} where {count} tensors are expected, one by one."
        if isinstance(given, tuple | list) and len(given) == len(expected):
            return _in_order(given, expected, tensors)
    if isinstance(expected, Mapping) and isinstance(given, Mapping) and set(given) == set(expected):
        return _first(((f"At {key!r}: ", given[key], expected[key]) for key in expected), tensors)
    return difference(given, expected)


def whole(given: Any, expected: Any) -> str | None:
    """As `difference`, but no 36.0 for 36, in a list either: the notebook goes on with counts."""
    if isinstance(given, Tensor | np.ndarray) and isinstance(expected, list | tuple):
        return "It gives a table where a list is expected: use .tolist()."
    if isinstance(expected, list | tuple) and isinstance(given, list | tuple):
        return _in_order(given, expected, whole)
    if isinstance(given, float) or (isinstance(given, Tensor) and given.is_floating_point()):
        return (
            f"It gives {shown(given)} where a whole number is expected: divide with //, or"
            " round as the exercise says and take int() of it."
        )
    return difference(given, expected)


def _numbers(given: Any, expected: Any) -> str | None:
    wanted, kind = torch.as_tensor(expected).detach().cpu(), _kind(expected)
    try:
        found = torch.as_tensor(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return f"It gives {shown(given)}, of type {type(given).__name__}, where {kind} is expected."
    if found.shape != wanted.shape:
        return f"It gives {_kind(given)} where {kind} is expected."
    if torch.allclose(
        found.to(torch.complex128), wanted.to(torch.complex128), RELATIVE, ABSOLUTE, equal_nan=True
    ):
        return None
    return "The numbers differ."


def _mapping(given: Any, expected: Mapping[Any, Any]) -> str | None:
    if not isinstance(given, Mapping):
        return f"It gives {shown(given)} where a dictionary is expected."
    if set(given) != set(expected):
        missing, extra = set(expected) - set(given), set(given) - set(expected)
        parts = [f"lacks {sorted(map(str, missing))}"] if missing else []
        parts += [f"has {sorted(map(str, extra))} too many"] if extra else []
        return f"The dictionary {' and '.join(parts)}."
    return _first((f"At {key!r}: ", given[key], expected[key]) for key in expected)


def _sequence(given: Any, expected: Sequence[Any]) -> str | None:
    if isinstance(given, Tensor | np.ndarray):
        given = given.tolist()
    if not isinstance(given, Sequence) or isinstance(given, str):
        return f"It gives {shown(given)} where {_kind(expected)} is expected."
    return _in_order(given, expected, difference)


def _in_order(given: Any, expected: Any, compare: Callable[[Any, Any], str | None]) -> str | None:
    if len(given) != len(expected):
        return f"It gives {_kind(given)} where {_kind(expected)} is expected."
    return _first(
        (
            (f"At place {place}: ", one, other)
            for place, (one, other) in enumerate(zip(given, expected, strict=True))
        ),
        compare,
    )


def _first(pairs: Any, compare: Callable[[Any, Any], str | None] = difference) -> str | None:
    for where, given, expected in pairs:
        problem = compare(given, expected)
        if problem and problem.startswith("At "):  # one place in another is said once
            return f"{where.removesuffix(': ')}, {problem.removeprefix('At ')}"
        if problem:
            return where + problem
    return None


def _kind(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{_a(value)} of {len(value)}"
    return "one number"


def _a(value: Any) -> str:
    """The name of its type, as in "a list", "an Identity"."""
    name = "NumPy array" if isinstance(value, np.ndarray) else type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _as_bool(value: Any) -> bool | None:
    """numpy's and torch's own booleans count as Python's."""
    if isinstance(value, np.bool_) or (
        isinstance(value, Tensor) and value.dtype == torch.bool and value.ndim == 0
    ):
        return bool(value)
    return None


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
