"""`export()`: capture both passes, write them, describe them, and compare them with the model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shortcutv2v import checkpoint, runtime
from shortcutv2v.adapter import Adapter
from shortcutv2v.deploy.passes import Program, capture
from shortcutv2v.deploy.steps import AdapterStep, Step, TeacherStep
from shortcutv2v.deploy.writers import ENGINES, write
from shortcutv2v.errors import ExportError, InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.refresh import Every

__all__ = ["export"]

RUNNER = "runner.py"
MULTIPLES = (1, 2, 4, 8, 16, 32)
TOLERANCE = 1e-3
"""Largest difference allowed between a program's outputs and the model's, relative to the largest value."""


@torch.no_grad()
def export(
    model: ShortcutV2V,
    inputs: tuple[Any, ...] | Tensor,
    folder: str | Path,
    *,
    format: str = "onnx",  # noqa: A002  (as on the command line)
    adapter: Adapter | None = None,
    pixels: bool = False,
    dynamic: bool = False,
) -> Path:
    """Write a full pass and a shortcut pass as two programs for an engine outside of Python.

    The folder then holds `reference` and `shortcut`, `shortcutv2v.json` that describes them, and `runner.py`, a copy of
    `shortcutv2v.runtime` that runs them with numpy and the engine alone. The shortcut program holds no weight of the
    middle. Both are compared with the model before this returns.

    Args:
        model: trained, its teacher in eval mode and on the CPU.
        inputs: an example of the teacher's inputs, of the size to come; with an adapter one frame (B, C, H, W) in
            [0, 1].
        folder: is made if it is not there; files of the same names are replaced.
        format: "onnx", "openvino", "torch" (`torch.export`) or "aoti" (AOTInductor).
        adapter: then the programs take frames and return pictures, and a recurrent teacher's state is an input and an
            output of them.
        pixels: with an adapter: uint8 (B, H, W, 3) in and out, instead of (B, 3, H, W) in [0, 1].
        dynamic: leave height and width open, instead of binding the programs to the size of `inputs`. The programs are
            then compared with the model at three sizes; the runner takes sizes that differ from the example's by a
            multiple of what was found to work.

    Returns:
        The folder.

    Raises:
        ExportError: the model cannot become programs of this format, or they do not give what the model gives.
        InputError: `pixels` without an adapter.
    """
    if pixels and adapter is None:
        raise InputError("pixels=True needs an adapter: without one the programs take the teacher's own inputs")
    if format not in ENGINES:
        raise ExportError(f"format={format!r}: expected one of {', '.join(ENGINES)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    training = model.training
    try:
        model.eval()
        args = inputs if isinstance(inputs, tuple) else (inputs,)

        def make(args: tuple[Any, ...]) -> Step:
            return TeacherStep(model.teacher, args) if adapter is None else AdapterStep(adapter, args[0], pixels)

        step = make(args)
        _check(step, dynamic)
        reference, shortcut = capture(model, step, signals=not isinstance(model.refresh, Every), dynamic=dynamic)
        programs = {"reference": reference, "shortcut": shortcut}
        files = write(programs, folder, format)
        manifest = describe(model, step, programs, files, dynamic) | {"engine": ENGINES[format]}
        _finish(folder, manifest)
        _compare(model, step, folder)
        if dynamic:
            _finish(folder, manifest | {"multiple": _multiple(model, make, args, folder)})
    finally:
        model.train(training)
    return folder


def describe(
    model: ShortcutV2V, step: Step, programs: dict[str, Program], files: dict[str, str], dynamic: bool
) -> dict[str, Any]:
    """Return all that a host must know to run the programs, as JSON-ready values."""
    recipe = checkpoint.recipe(model)
    reference, shortcut = programs["reference"], programs["shortcut"]
    frames = {name: x for name, x in step.examples.items() if name not in step.recurrent}
    states = [name for name in shortcut.inputs if name not in step.examples]
    others = {*states, *shortcut.signals, *step.recurrent.values()}
    return {
        "format": runtime.FORMAT,
        "shortcutv2v": recipe["shortcutv2v"],
        "programs": {
            name: {"file": files[name], "inputs": list(program.inputs), "outputs": program.outputs}
            for name, program in programs.items()
        },
        "inputs": [_tensor(name, x) | _open(step, x, dynamic) | _picture(step, name) for name, x in frames.items()],
        "multiple": 1,
        "outputs": [{"name": name} | _picture(step, name) for name in reference.outputs if name not in others],
        "reference": {name: _tensor(name, shortcut.inputs[name]) for name in states},
        "recurrent": [
            {"input": name, "output": output, "initial": float(name == "begins"), **_tensor(name, step.examples[name])}
            for name, output in step.recurrent.items()
        ],
        "signals": shortcut.signals,
        "refresh": recipe["refresh"],
        "show_shortcut": model.show_shortcut,
        "trained_interval": model.trained_interval,
        "blocks": recipe["blocks"],
        "blocks_sha256": _weights_hash(model),
        "teacher": recipe["teacher"],
    }


def _tensor(name: str, x: Tensor) -> dict[str, Any]:
    return {"name": name, "dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape)}


def _open(step: Step, x: Tensor, dynamic: bool) -> dict[str, Any]:
    """The shape with null for what may change, and the example's."""
    if not dynamic:
        return {}
    sides = step.sides(x)
    return {"shape": [None if axis in sides else n for axis, n in enumerate(x.shape)], "example": list(x.shape)}


def _picture(step: Step, name: str) -> dict[str, Any]:
    """Meaning of a picture's numbers."""
    if step.picture is None or name not in ("frame", "picture"):
        return {}
    pixels = step.picture == "pixels"
    layout, values = ("NHWC", [0, 255]) if pixels else ("NCHW", [0, 1])
    return {"picture": {"colours": "RGB", "layout": layout, "range": values}}


def _weights_hash(model: ShortcutV2V) -> str:
    digest = hashlib.sha256()
    for name, value in model.blocks.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _finish(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest with the hashes of the programs' files, and the runner."""
    shutil.copyfile(runtime.__file__, folder / RUNNER)
    own = {program["file"] for program in manifest["programs"].values()}
    own |= {Path(name).with_suffix(".bin").name for name in own} | {"weights.bin"}
    manifest["files"] = {name: runtime.file_hash(folder / name) for name in sorted(own) if (folder / name).is_file()}
    (folder / runtime.MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _check(step: Step, dynamic: bool) -> None:
    if dynamic and step.recurrent:
        raise ExportError(
            "dynamic=True does not go with an adapter that has a state from frame to frame, because the state before "
            "the first frame has a size: leave it out, and export programs for each size"
        )


def _multiple(model: ShortcutV2V, make: Callable[[Any], Step], args: tuple[Any, ...], folder: Path) -> int:
    """The smallest step in height and width at which the programs give what the model gives."""
    reason: Exception | None = None
    for multiple in MULTIPLES:
        try:
            for height, width in ((1, 2), (3, 1)):
                larger = [_enlarged(x, height * multiple, width * multiple) for x in args]
                _compare(model, make(tuple(larger)), folder)
        except Exception as error:  # of any engine
            reason = error
        else:
            return multiple
    raise ExportError(
        f"the programs hold for one size only: leave out dynamic=True, and export programs for each size. At another "
        f"size: {str(reason).splitlines()[0]}"
    ) from reason


def _enlarged(x: Any, rows: int, columns: int) -> Any:
    """A map that begins anew where it ends, so that its values stay what they mean."""
    if not isinstance(x, Tensor) or x.dim() != 4:
        return x
    height, width = x.shape[2:]
    down, across = torch.arange(height + rows) % height, torch.arange(width + columns) % width
    return x[:, :, down][:, :, :, across]


def _compare(model: ShortcutV2V, step: Step, folder: Path) -> None:
    """Play a few frames through the programs and through the model.

    Raises:
        ExportError: they differ.
    """
    stream = model.stream(refresh=2)
    runner = runtime.Runner(folder, refresh=2)
    recurrent = {
        name: torch.full_like(x, name == "begins") for name, x in step.examples.items() if name in step.recurrent
    }
    for number in range(3):
        # Rolled, so that frames differ and values stay what they mean: labels, for example.
        given = {
            name: x.roll(number, -2) if x.dim() > 3 else x for name, x in step.examples.items() if name not in recurrent
        }
        args, kwargs = step.inputs(given | recurrent)
        expected = step.results(given | recurrent, stream(*args, **kwargs))
        found = runner(*(x.numpy() for x in given.values()))
        recurrent = {name: expected.pop(output) for name, output in step.recurrent.items()}
        arrays = found if isinstance(found, dict) else dict.fromkeys(expected, found)
        for name, wanted in expected.items():
            error = _distance(arrays[name], wanted.numpy())
            if not error <= TOLERANCE:
                raise ExportError(
                    f"frame {number}: the {'shortcut' if number % 2 else 'reference'} program's {name} differs by "
                    f"{error:.1g} of the largest value from the model's: the engine computes something else, try "
                    "another format"
                )


def _distance(found: Any, expected: Any) -> float:
    if found.dtype == np.uint8:
        return 0.0 if int(np.abs(found.astype(int) - expected.astype(int)).max()) <= 1 else 1.0
    return float(np.abs(found - expected).max() / max(1e-6, float(np.abs(expected).max())))
