"""`export()`: capture the passes, write them, describe them, and compare them with the model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from shortcutv2v import checkpoint, engines
from shortcutv2v.adapter import Adapter
from shortcutv2v.deploy.passes import Program, capture
from shortcutv2v.deploy.steps import AdapterStep, Named, TeacherStep
from shortcutv2v.deploy.writers import ENGINES, write
from shortcutv2v.errors import ExportError, InputError
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.player import Player
from shortcutv2v.refresh import Every
from shortcutv2v.runtime import Runner
from shortcutv2v.stream import Stream

__all__ = ["export"]

RUNNER = "runner"
_ALIKE = ("decibels", "engines", "errors", "goals", "look", "quality", "refresh")
MODULES = {"__init__": "runtime"} | dict(zip(_ALIKE, _ALIKE, strict=True))
"""Module of the package `runner` -> the module of this package that it is a copy of."""
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

    The folder then holds `reference` and `shortcut`, `shortcutv2v.json` that describes them, and the package `runner`,
    a copy of `shortcutv2v.runtime` that runs them with numpy and the engine alone. The shortcut program holds no weight
    of the middle. The programs are compared with the model first; if they differ, nothing is written.

    Args:
        model: trained, its teacher in eval mode and on the CPU.
        inputs: an example of the teacher's inputs, of the size to come; with an adapter one frame (B, C, H, W) in
            [0, 1].
        folder: is made if it is not there; files of the same names are replaced.
        format: "onnx", "openvino", "torch" (`torch.export`) or "aoti" (AOTInductor).
        adapter: then the programs take frames and return pictures, and a recurrent teacher's state is an input and an
            output of them. Frames that the adapter paints itself (`opening`) are programs, too.
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
    folder, training = Path(folder), model.training
    args = inputs if isinstance(inputs, tuple) else (inputs,)

    def make(args: Sequence[Any]) -> TeacherStep:
        return TeacherStep(model.teacher, tuple(args)) if adapter is None else AdapterStep(adapter, args[0], pixels)

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        model.eval()
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            _export(model, make, args, Path(temporary), format, dynamic)
            folder.mkdir(exist_ok=True)
            shutil.rmtree(folder / RUNNER, ignore_errors=True)
            for path in Path(temporary).iterdir():
                os.replace(path, folder / path.name)
    finally:
        model.train(training)
    return folder


def _export(
    model: ShortcutV2V,
    make: Callable[[Sequence[Any]], TeacherStep],
    args: Sequence[Any],
    folder: Path,
    form: str,
    dynamic: bool,
) -> None:
    """Write everything, and compare it with the model."""
    step = make(args)
    if dynamic and step.recurrent:
        raise ExportError(
            "dynamic=True does not go with an adapter that has a state from frame to frame, because the state before "
            "the first frame has a size: leave it out, and export programs for each size"
        )
    signals = model.calibration is not None or not isinstance(model.refresh, Every)
    programs = capture(model, step, signals=signals, dynamic=dynamic)
    files = write(programs, folder, form)
    (folder / RUNNER).mkdir()
    for name, source in MODULES.items():
        text = Path(engines.__file__).with_name(f"{source}.py").read_text()
        (folder / RUNNER / f"{name}.py").write_text(text.replace("from shortcutv2v.", "from ."))
    manifest = describe(model, step, programs, dynamic) | {"engine": ENGINES[form]}
    for name, file in files.items():
        manifest["programs"][name]["file"] = file
    hashed = [path for path in sorted(folder.iterdir()) if path.is_file()]
    manifest["files"] = {path.name: engines.file_hash(path) for path in hashed}
    target = folder / engines.MANIFEST
    target.write_text(json.dumps(manifest, indent=2) + "\n")
    _compare(model, step, folder)
    if dynamic:
        manifest["multiple"] = _multiple(model, make, args, folder)
        target.write_text(json.dumps(manifest, indent=2) + "\n")


def describe(model: ShortcutV2V, step: TeacherStep, programs: dict[str, Program], dynamic: bool) -> dict[str, Any]:
    """Return all that a host must know to run the programs beside their files, as JSON-ready values."""
    reference, shortcut = programs["reference"], programs["shortcut"]
    signals = [name for name in shortcut.outputs if name.startswith("unexplained_")]
    conditions = [name for name in shortcut.outputs if name.startswith("condition_")]
    states = {name: x for name, x in shortcut.inputs.items() if name not in step.examples}
    others = {*states, *conditions, *step.recurrent.values()}
    weights = {name: value.detach().contiguous() for name, value in model.blocks.state_dict().items()}
    return checkpoint.recipe(model) | {
        "format": engines.FORMAT,
        "programs": {name: {"inputs": list(of.inputs), "outputs": of.outputs} for name, of in programs.items()},
        "inputs": [_input(step, name, dynamic) for name in step.examples if name not in step.recurrent],
        "multiple": 1,
        "outputs": [{"name": name} | _picture(step, name) for name in reference.outputs if name not in others],
        "reference": {name: _tensor(x) for name, x in states.items()},
        "conditions": conditions,
        "recurrent": [
            {"input": name, "output": output, "initial": float(name == "begins"), **_tensor(step.examples[name])}
            for name, output in step.recurrent.items()
        ],
        "signals": signals,
        "horizon": model.horizon,
        "blocks_sha256": hashlib.sha256(save(weights)).hexdigest(),  # the hash of a saved block's file
    }


def _tensor(x: Tensor) -> dict[str, Any]:
    return {"dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape)}


def _input(step: TeacherStep, name: str, dynamic: bool) -> dict[str, Any]:
    """An input; null in the shape for sizes that may change, which `example` gives."""
    x = step.examples[name]
    described = {"name": name, **_tensor(x), **_picture(step, name)}
    if dynamic:
        shape = [None if axis in step.sides(x) else n for axis, n in enumerate(x.shape)]
        described |= {"shape": shape, "example": list(x.shape)}
    return described


def _picture(step: TeacherStep, name: str) -> dict[str, Any]:
    """Meaning of a picture's numbers."""
    if step.picture is None or name not in ("frame", "picture"):
        return {}
    layout, values = ("NHWC", [0, 255]) if step.picture == "pixels" else ("NCHW", [0, 1])
    return {"picture": {"colours": "RGB", "layout": layout, "range": values}}


def _multiple(
    model: ShortcutV2V, make: Callable[[Sequence[Any]], TeacherStep], args: Sequence[Any], folder: Path
) -> int:
    """The smallest step in height and width at which the programs give what the model gives."""
    reason: Exception | None = None
    for multiple in MULTIPLES:
        try:
            for height, width in ((1, 2), (3, 1)):
                _compare(model, make([_enlarged(x, height * multiple, width * multiple) for x in args]), folder)
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


def _compare(model: ShortcutV2V, step: TeacherStep, folder: Path) -> None:
    """Play a few frames through the programs and through the model.

    Raises:
        ExportError: they differ.
    """
    play, runner = _player(step, model.stream(refresh=2)), Runner(folder, refresh=2)
    for number in range(len(step.openings) + 3):
        # Rolled, so that frames differ and values stay what they mean: labels, for example.
        frames = {name: x for name, x in step.examples.items() if name not in step.recurrent}
        given = {name: x.roll(number, -2) if x.dim() > 3 else x for name, x in frames.items()}
        found = runner(*(x.numpy() for x in given.values()))
        program = "shortcut" if runner.distance else "reference" if number >= len(step.openings) else "opening"
        for name, wanted in play(given).items():
            error = _distance(found[name] if isinstance(found, dict) else found, wanted.numpy())
            if not error <= TOLERANCE:
                raise ExportError(
                    f"frame {number}: the {program} program's {name} differs by {error:.1g} of the largest value from "
                    "the model's: the engine computes something else, try another format"
                )


def _player(step: TeacherStep, stream: Stream) -> Callable[[Named], Named]:
    """Return the outputs that the programs should give for the next frame."""
    if not isinstance(step, AdapterStep):
        return lambda given: step.results(given, stream(*step.inputs(given)[0]))
    player = Player(step.adapter, stream)
    return lambda given: {"picture": step.shown(player.picture(player(step.frame(given)).output))}


def _distance(found: Any, expected: Any) -> float:
    if found.dtype == np.uint8:
        return 0.0 if int(np.abs(found.astype(int) - expected.astype(int)).max()) <= 1 else 1.0
    return float(np.abs(found - expected).max() / max(1e-6, float(np.abs(expected).max())))
