"""Open exported programs in an engine: each becomes a function from arrays by name to arrays by name.

An engine is imported when a program is opened in it; this module needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shortcutv2v.errors import InputError

__all__ = ["FORMAT", "MANIFEST", "Arrays", "Program", "RunnerError", "file_hash", "open_programs"]

FORMAT = 1
MANIFEST = "shortcutv2v.json"
Arrays = Mapping[str, Any]
Program = Callable[[Arrays], dict[str, Any]]


class RunnerError(InputError):
    """A folder of programs cannot be run, or a frame does not fit them."""


def open_programs(
    folder: Path, engine: str | None, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Program]]:
    """Return the manifest of a folder, and its programs by name.

    Args:
        folder: that `shortcutv2v.export()` wrote.
        engine: "onnxruntime", "openvino" or "torch"; None for the one that the programs were written for.
        options: the engine's own, see `runtime.Runner`.

    Raises:
        RunnerError: see `runtime.Runner`.
    """
    manifest = _read(folder)
    name = engine or manifest["engine"]
    if name not in _ENGINES:
        raise RunnerError(f"engine={engine!r}: expected one of {', '.join(_ENGINES)}")
    programs = {
        kind: _ENGINES[name](folder / program["file"], program["inputs"], program["outputs"], options)
        for kind, program in manifest["programs"].items()
    }
    return manifest, programs


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(folder: Path) -> dict[str, Any]:
    """The manifest, after a look whether the files beside it are those that it was written with."""
    path = folder / MANIFEST
    if not path.is_file():
        raise RunnerError(f"{folder} holds no {MANIFEST}: expected a folder that shortcutv2v.export() wrote")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = int(manifest["format"])
    except (ValueError, TypeError, KeyError) as error:
        raise RunnerError(f"{path} is damaged: {error}") from None
    if version != FORMAT:
        raise RunnerError(f"{path} has format {version}, this runner reads format {FORMAT}: upgrade shortcutv2v")
    for name, expected in manifest["files"].items():
        if not (folder / name).is_file():
            raise RunnerError(f"{folder} holds no {name}: copy the whole folder that was exported")
        if file_hash(folder / name) != expected:
            raise RunnerError(f"{folder / name} belongs to another export than {MANIFEST}: export again")
    return manifest


def _onnxruntime(path: Path, inputs: list[str], outputs: list[str], options: dict[str, Any]) -> Program:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, **{"providers": onnxruntime.get_available_providers(), **options})
    return lambda given: dict(zip(outputs, session.run(outputs, {name: given[name] for name in inputs}), strict=True))


def _openvino(path: Path, inputs: list[str], outputs: list[str], options: dict[str, Any]) -> Program:
    import openvino

    # Without the hint it computes in bfloat16 wherever the CPU can.
    usual = {"device_name": "CPU", "config": {"INFERENCE_PRECISION_HINT": "f32"}}
    request = openvino.compile_model(path, **{**usual, **options}).create_infer_request()

    def run(given: Arrays) -> dict[str, Any]:
        found = request.infer({name: given[name] for name in inputs}, share_inputs=True, share_outputs=False)
        return dict(zip(outputs, found.values(), strict=True))

    return run


def _torch(path: Path, inputs: list[str], outputs: list[str], options: dict[str, Any]) -> Program:
    import torch

    compiled = path.name.endswith(".aoti.pt2")
    load: Any = torch._inductor.aoti_load_package if compiled else torch.export.load
    program = load(str(path), **options) if compiled else load(path).module(**options)

    def run(given: Arrays) -> dict[str, Any]:
        with torch.no_grad():
            found = program(*(torch.as_tensor(given[name]) for name in inputs))
        return {name: x.numpy() for name, x in found.items()}

    return run


_ENGINES = {"onnxruntime": _onnxruntime, "openvino": _openvino, "torch": _torch}
