"""Run exported programs without torch: this file imports numpy, and the engine when a program is opened.

    runner = Runner("programs/")
    for frame in video:                 # uint8 (H, W, 3)
        picture = runner(frame)         # uint8 (H', W', 3)
    runner.reset()                      # before the next video

`shortcutv2v.export()` writes the folder, and a copy of this file into it as `runner.py`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FORMAT", "MANIFEST", "Runner", "RunnerError", "file_hash"]

FORMAT = 1
MANIFEST = "shortcutv2v.json"
Array = np.ndarray[Any, np.dtype[Any]]
Program = Callable[[Mapping[str, Any]], dict[str, Any]]
Due = Callable[[int, Mapping[str, float]], bool]


class RunnerError(ValueError):
    """A folder of programs cannot be run, or a frame does not fit them."""


class Runner:
    """One video that goes through exported programs: full passes at reference frames, shortcut passes between.

    Args:
        folder: a folder that `shortcutv2v.export()` wrote.
        engine: "onnxruntime", "openvino" or "torch"; default: the one that the programs were written for. OpenVINO
            runs ONNX programs, too.
        refresh: the interval, or a function `due(distance, signals) -> bool`, instead of the exported policy. `signals`
            are the numbers that the shortcut program gives beside its output, by name.
        options: passed to the engine: `providers`, `provider_options` and `sess_options` of an
            `onnxruntime.InferenceSession`, `device_name` and `config` of OpenVINO's `compile_model`.

    Attributes:
        manifest: the content of `shortcutv2v.json`.
        distance: frames since the last refresh, 0 at a reference frame.
        refreshes: how many frames were reference frames since the last `reset()`.

    Raises:
        RunnerError: files are missing, belong to another export, or are of a newer format; or the policy is unknown.
    """

    def __init__(
        self, folder: str | Path, *, engine: str | None = None, refresh: int | Due | None = None, **options: Any
    ) -> None:
        self.manifest = _read(Path(folder))
        name = engine or self.manifest["engine"]
        if name not in _ENGINES:
            raise RunnerError(f"engine={engine!r}: expected one of {', '.join(_ENGINES)}")
        self._programs = {
            kind: _ENGINES[name](Path(folder) / program["file"], program["inputs"], program["outputs"], options)
            for kind, program in self.manifest["programs"].items()
        }
        self._interval, self._due = _policy(self.manifest["refresh"], refresh)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.distance = self.refreshes = 0
        self._reference: dict[str, Any] = {}
        self._recurrent = {
            pair["input"]: np.full(pair["shape"], pair["initial"], pair["dtype"]) for pair in self.manifest["recurrent"]
        }

    def __call__(self, *frames: Array) -> Any:
        """Return the output for the next frame.

        Args:
            frames: the inputs named under "inputs" in the manifest, in that order. A picture may also be given as uint8
                (H, W, 3); then the output is one, too.

        Returns:
            An array, or arrays by name if the programs have several outputs.

        Raises:
            RunnerError: the programs do not take this number of inputs, or an input of this shape.
        """
        pixels = len(frames) == 1 and frames[0].dtype == np.uint8 and self._takes_pixels
        given = self._checked((_to_range(frames[0]),) if pixels and not self._holds_pixels else frames)
        shapes = {name: value.shape for name, value in given.items()}
        if shapes != self._shapes:
            self.reset()
        self._shapes = shapes
        found = self._next({**given, **self._recurrent})
        self._recurrent = {pair["input"]: found[pair["output"]] for pair in self.manifest["recurrent"]}
        outputs = {spec["name"]: np.asarray(found[spec["name"]]) for spec in self.manifest["outputs"]}
        if pixels:
            picture = next(iter(outputs.values()))
            if not self._holds_pixels:
                return _to_pixels(picture)
            return picture[0] if frames[0].ndim == 3 else picture
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def _next(self, given: dict[str, Any]) -> dict[str, Any]:
        """All that the programs give for this frame, and a reference if one is due."""
        show = self.manifest["show_shortcut"]
        horizon = self.distance + 1 >= self._interval
        if not self._reference or (horizon and not show):
            return self._full(given)
        found = self._programs["shortcut"](given | self._reference)
        signals = {name: float(np.max(np.asarray(found[name]))) for name in self.manifest["signals"]}
        if not self._finite(found):
            return self._full(given)
        if horizon or self._due(self.distance + 1, signals):
            full = self._full(given)
            return full | found if show else full
        self.distance += 1
        return found

    def _full(self, given: dict[str, Any]) -> dict[str, Any]:
        found = self._programs["reference"](given)
        kept = {name: found[name] for name in self.manifest["reference"]}
        # A reference that is not finite would spoil all frames up to the next one.
        self._reference = kept if self._finite(found) else {}
        self.distance, self.refreshes = 0, self.refreshes + 1
        return found

    def _finite(self, found: Mapping[str, Any]) -> bool:
        arrays = [np.asarray(found[spec["name"]]) for spec in self.manifest["outputs"]]
        return all(bool(np.isfinite(x).all()) for x in arrays if x.dtype.kind == "f")

    @property
    def _takes_pixels(self) -> bool:
        return bool(self.manifest["inputs"][0].get("picture"))

    @property
    def _holds_pixels(self) -> bool:
        return bool(self.manifest["inputs"][0]["dtype"] == "uint8")

    def _checked(self, frames: tuple[Array, ...]) -> dict[str, Array]:
        """The inputs by name, if the programs take them."""
        specs = self.manifest["inputs"]
        if len(frames) != len(specs):
            names = ", ".join(spec["name"] for spec in specs)
            raise RunnerError(f"got {len(frames)} inputs; the programs take {len(specs)}: {names}")
        given = {}
        for spec, frame in zip(specs, frames, strict=True):
            value = np.ascontiguousarray(frame)
            if value.ndim == len(spec["shape"]) - 1 and spec.get("picture"):
                value = value[None]
            if not self._fits(value.shape, spec) or value.dtype != spec["dtype"]:
                step = f"+{self.manifest['multiple']}n"
                example = zip(spec["shape"], spec.get("example", spec["shape"]), strict=True)
                expected = "x".join(f"({n}{step})" if want is None else str(want) for want, n in example)
                raise RunnerError(
                    f"{spec['name']} is {value.dtype} {'x'.join(map(str, value.shape))}; the programs were exported "
                    f"for {spec['dtype']} {expected}: resize the frame, or export programs for its size"
                )
            given[spec["name"]] = value
        return given

    def _fits(self, shape: tuple[int, ...], spec: Mapping[str, Any]) -> bool:
        """True if a shape is the program's, or differs from it by a multiple where it may."""
        wanted = spec["shape"]
        if len(shape) != len(wanted):
            return False
        sizes = zip(shape, wanted, spec.get("example", wanted), strict=True)
        step = self.manifest["multiple"]
        return all((size - example) % step == 0 if want is None else size == want for size, want, example in sizes)


def _to_range(frame: Array) -> Array:
    """A picture as uint8 (H, W, 3) -> float32 (1, 3, H, W) in [0, 1]."""
    if frame.ndim != 3:
        raise RunnerError(f"a picture is uint8 (H, W, 3), got {frame.shape}")
    scaled: Array = np.ascontiguousarray(frame.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    return scaled


def _to_pixels(picture: Array) -> Array:
    pixels: Array = (picture[0].clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return pixels


def _policy(saved: Mapping[str, Any], given: int | Due | None) -> tuple[int, Due]:
    """The horizon, and what decides before it is reached."""
    interval = int(saved["interval"])
    if isinstance(given, int):
        return given, _never
    if given is not None:
        return interval, given
    if saved["name"] in ("Every", "Function"):
        return interval, _never
    if saved["name"] == "Quality" and saved["level"] is not None:
        return interval, functools.partial(_below, saved)
    raise RunnerError(
        f"the refresh policy {saved['name']!r} does not run here (Quality does, once it is calibrated): give refresh=, "
        "an interval or a function due(distance, signals) -> bool"
    )


def _never(distance: int, signals: Mapping[str, float]) -> bool:
    return False


def _below(saved: Mapping[str, Any], distance: int, signals: Mapping[str, float]) -> bool:
    """True if a prediction's estimated PSNR, less the margin, is below the target of `shortcutv2v.quality.Quality`."""
    size = max(sum(signals.values()), 1e-12)
    estimate = saved["level"] + saved["slope"] * 10 * math.log10(size)
    return bool(estimate - saved["margin"] < saved["target"])


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
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

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(outputs, session.run(outputs, {name: given[name] for name in inputs}), strict=True))

    return run


def _openvino(path: Path, inputs: list[str], outputs: list[str], options: dict[str, Any]) -> Program:
    import openvino

    # Without the hint it computes in bfloat16 wherever the CPU can.
    usual = {"device_name": "CPU", "config": {"INFERENCE_PRECISION_HINT": "f32"}}
    request = openvino.compile_model(path, **{**usual, **options}).create_infer_request()

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        found = request.infer({name: given[name] for name in inputs}, share_inputs=True, share_outputs=False)
        return dict(zip(outputs, found.values(), strict=True))

    return run


def _torch(path: Path, inputs: list[str], outputs: list[str], options: dict[str, Any]) -> Program:
    import torch

    program: Any
    if path.name.endswith(".aoti.pt2"):
        program = torch._inductor.aoti_load_package(str(path), **options)
    else:
        program = torch.export.load(path).module(**options)

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        with torch.no_grad():
            return dict(program(*(torch.as_tensor(given[name]) for name in inputs)))

    return run


_ENGINES: dict[str, Callable[[Path, list[str], list[str], dict[str, Any]], Program]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}
