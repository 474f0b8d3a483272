"""What Python or PyTorch says when an answer stops, and what it means: one sentence more."""

from __future__ import annotations

import re

# A pattern of the message → what to do about it.
MEANINGS = {
    r"unexpected keyword argument 'axis'": (
        "NumPy's functions don't take tensors: a tensor has its own, as in x.mean()."
    ),
    r"bitwise_xor|unsupported operand type\(s\) for \^": "A power is ** in Python, not ^.",
    r"'NoneType' object has no attribute|unsupported operand.*'NoneType'": (
        "Something is None there: a .grad is, until backward() has filled it, and so is what a"
        " function without `return` gives."
    ),
    r"Boolean value of Tensor": (
        "A tensor isn't simply true or false: ask `is not None`, or reduce it with .all() or"
        " .any()."
    ),
    r"mat1 and mat2 shapes .*\(\d+x(\d+) and (\d+)x\d+\)": (
        r"The columns of the first table (\1) must be as many as the rows of the second (\2)."
    ),
    r"\bReLU\b": "nn.ReLU() makes a layer: write torch.relu(x), or nn.ReLU()(x).",
}


def explained(message: str) -> str:
    """The message, and a sentence about it where it is a known one."""
    for pattern, says in MEANINGS.items():
        found = re.search(pattern, message)
        if found:
            return f"{message.rstrip(' .:')}. {found.expand(says)}"
    return message
