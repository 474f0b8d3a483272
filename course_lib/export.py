"""A network as an ONNX file, which other programs run without PyTorch; and in 8-bit numbers.

Needs the extra "export": onnx, onnxscript and onnxruntime.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from course_lib.errors import CourseError
from course_lib.measure import fold

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(network: nn.Module, images: Tensor, path: Path) -> Path:
    """Write the folded network as one ONNX file that takes any number of such images [N, C, H, W].

    Raises CourseError where a package of the extra "export" is missing.
    """
    _need_packages()
    plain = fold(network).cpu().to(memory_format=torch.contiguous_format)
    example = torch.cat([images[:1]] * 2).cpu().contiguous()  # of one image, N would be fixed to 1
    with _quiet():
        torch.onnx.export(
            plain,
            (example,),
            path,
            dynamo=True,
            external_data=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("images_at_once")},),
            verbose=False,
        )
    return path


def quantize_onnx(path: Path, images: Tensor, into: Path) -> Path:
    """Write an 8-bit version of an ONNX file: weights per filter, activations per layer.

    The ranges of the activations are taken from what these images [N, C, H, W] give ("static"
    quantisation); they should be training images. Raises CourseError where a package is missing.
    """
    _need_packages()
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images.contiguous().split(32))

        def get_next(self) -> dict[str, object] | None:
            batch = next(self.left, None)
            return None if batch is None else {"images": batch.numpy()}

    with _quiet():
        quantize_static(path, into, Reader(), per_channel=True)
    return into


def open_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """A function from images [N, C, H, W] to logits [N, classes], computed by ONNX Runtime on as
    many threads as PyTorch uses. Raises CourseError where a package is missing.
    """
    _need_packages()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(None, {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return run


def _need_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise CourseError(
            f"Exporting needs {', '.join(missing)}: `pip install -e .[export]` brings what is"
            " missing."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters advise in warnings and log lines, on matters that are settled here."""
    was = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(was)
