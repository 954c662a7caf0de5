"""Write captured programs in one format each; every engine is imported here, when it is needed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.deploy.passes import Program
from shortcutv2v.errors import ExportError

__all__ = ["ENGINES", "halved", "write"]

ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch", "aoti": "torch"}
"""Format -> the engine that runs it."""
OPSET = 20  # the first with GridSample as torch means it
_WEIGHTS = "weights.bin"
_LARGE = 1024  # bytes; smaller tensors stay in the programs
_ALIGNED = 4096  # what engines want in order to map a file into memory

Programs = Mapping[str, Program]


def write(programs: Programs, folder: Path, form: str) -> dict[str, str]:
    """Write the programs to `folder`, and return the name of each one's file.

    Raises:
        ExportError: a package is missing, or the program holds an operator that the format lacks.
    """
    suffix, writer = _WRITERS[form]
    try:
        writer(programs, folder)
    except ImportError as error:
        raise ExportError(f"format={form!r} needs the package {error.name}: pip install shortcutv2v[export]") from error
    return {name: name + suffix for name in programs}


def _torch(programs: Programs, folder: Path) -> None:
    for name, program in programs.items():
        torch.export.save(program.exported, folder / f"{name}.pt2")


def _aoti(programs: Programs, folder: Path) -> None:
    import torch._inductor

    for name, program in programs.items():
        path = str(folder / f"{name}.aoti.pt2")
        torch._inductor.aoti_compile_and_package(program.exported, package_path=path)


def _openvino(programs: Programs, folder: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as temporary:
        _onnx(programs, Path(temporary))
        for name in programs:
            try:
                model = openvino.convert_model(Path(temporary) / f"{name}.onnx")
            except Exception as error:
                raise ExportError(f"OpenVINO does not take the {name} program: {_cause(error)}") from error
            openvino.save_model(model, folder / f"{name}.xml", compress_to_fp16=False)


def _onnx(programs: Programs, folder: Path) -> None:
    import onnx_ir
    import onnxscript  # noqa: F401  (torch wants it, and says so less clearly)

    models = {name: _converted(name, program) for name, program in programs.items()}
    with (folder / _WEIGHTS).open("wb") as file:
        written: dict[bytes, tuple[int, int]] = {}
        for model in models.values():
            for value in model.graph.initializers.values():
                if value.const_value.nbytes >= _LARGE:
                    value.const_value = _shared(value.const_value, file, written, folder)
    for name, model in models.items():
        onnx_ir.save(model, folder / f"{name}.onnx")


def _converted(name: str, program: Program) -> Any:
    """A program as a model of `onnx_ir`."""
    try:
        made = torch.onnx.export(
            program.exported.run_decompositions({torch.ops.aten.upsample_bicubic2d.vec: halved}),
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(program.inputs),
            output_names=program.outputs,
            verbose=False,
        )
    except Exception as error:
        raise ExportError(f"the {name} program is no ONNX of opset {OPSET}: {_cause(error)}") from error
    return cast("Any", made).model


def _shared(tensor: Any, file: Any, written: dict[bytes, tuple[int, int]], folder: Path) -> Any:
    """The tensor, its values in the file of weights; equal values stand there once, whatever program they are of."""
    import onnx_ir

    values = tensor.tobytes()
    digest = hashlib.sha256(values).digest()
    if digest not in written:
        file.write(b"\0" * (-file.tell() % _ALIGNED))
        written[digest] = file.tell(), len(values)
        file.write(values)
    place = written[digest]
    return onnx_ir.ExternalTensor(_WEIGHTS, *place, tensor.dtype, shape=tensor.shape, name=tensor.name, base_dir=folder)


def halved(x: Tensor, size: list[int] | None, align_corners: bool, scales: list[float] | None) -> Any:
    """A bicubic reduction to a half, a quarter and so on, as the convolution that it is.

    ONNX Runtime resizes bicubically one number at a time: in Real-ESRGAN x2 that took longer than all convolutions of a
    shortcut frame together.
    """
    height, width = x.shape[2:]
    small = size or [int(side * scale) for side, scale in zip((height, width), scales or (1, 1), strict=True)]
    step = height // small[0]
    exact = all(isinstance(side, int) for side in (height, width)) and [height, width] == [step * n for n in small]
    if align_corners or not exact or step % 2:
        return NotImplemented
    taps = x.new_tensor([-0.09375, 0.59375, 0.59375, -0.09375])  # half-way between two pixels, a = -0.75
    kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 4, 4)
    reach = 2 - step // 2
    around = F.pad(x, (reach,) * 4, mode="replicate") if reach > 0 else x[..., -reach:, -reach:]
    return F.conv2d(around, kernel, stride=step, groups=x.shape[1])[..., : small[0], : small[1]]


def _cause(error: BaseException) -> str:
    """The first line of the error that everything began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


_WRITERS: dict[str, tuple[str, Callable[[Programs, Path], None]]] = {
    "onnx": (".onnx", _onnx),
    "openvino": (".xml", _openvino),
    "torch": (".pt2", _torch),
    "aoti": (".aoti.pt2", _aoti),
}
