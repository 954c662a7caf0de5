"""Run exported programs without torch: numpy, this package's policies, and the engine when a program is opened.

    runner = Runner("programs/")        # or Runner("programs/", quality=40)
    for frame in video:                 # uint8 (H, W, 3)
        picture = runner(frame)         # uint8 (H', W', 3)
    runner.reset()                      # before the next video

`shortcutv2v.export()` writes the folder, and this module with the policies into it, as the package `runner`.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

from shortcutv2v.decibels import psnr_of
from shortcutv2v.engines import Arrays, RunnerError, open_programs
from shortcutv2v.goals import policy_for
from shortcutv2v.quality import Calibration
from shortcutv2v.refresh import Every, Look, RefreshPolicy, from_recipe, own_copy, reason_of

__all__ = ["Runner", "RunnerError"]


class Runner:
    """One video, or a batch whose rows refresh together, on its way through exported programs; as `Stream` in torch.

    Args:
        folder: that `shortcutv2v.export()` wrote.
        engine: "onnxruntime", "openvino" (which runs ONNX programs, too) or "torch"; default: that of the format.
        options: `refresh`, `quality`, `speed`, `guarantee`, as `ShortcutV2V.stream()` takes them, instead of the
            exported policy; a function `policy(look)` sees `distance`, `times` and `predictions[branch].unexplained`
            alone. The others are the engine's: `providers`, `provider_options` and `sess_options` of ONNX Runtime's
            `InferenceSession`, `device_name` and `config` of OpenVINO's `compile_model`.

    Attributes:
        manifest: the content of `shortcutv2v.json`.
        policy: the refresh policy, which has seen this video.
        distance: frames since the last refresh, 0 at a reference frame.
        refreshes: refreshes since the last `reset()`, by reason; see `Stream.refreshes`.

    Raises:
        RunnerError: files are missing, belong to another export, or are of a newer format.
        InputError: the policy is unknown, or a value of it is out of range.
    """

    def __init__(self, folder: str | Path, *, engine: str | None = None, **options: Any) -> None:
        goal: dict[str, Any] = {
            name: options.pop(name) for name in ("refresh", "quality", "speed", "guarantee") if name in options
        }
        self.manifest, self._programs = open_programs(Path(folder), engine, options)
        self.policy = own_copy(_policy(self.manifest, goal))
        self._shapes: list[tuple[int, ...]] = []
        self.reset()

    def reset(self) -> None:
        """Begin a new video."""
        self.policy.reset()
        self.distance = self._frames = 0
        self.refreshes: Counter[str] = Counter()
        self._times: tuple[deque[float], deque[float]] = deque(maxlen=101), deque(maxlen=101)
        self._reference: Arrays = {}
        pairs = self.manifest["recurrent"]
        self._state = {pair["input"]: np.full(pair["shape"], pair["initial"], pair["dtype"]) for pair in pairs}

    def __call__(self, *frames: Any) -> Any:
        """Return the output for the next frame; a new size begins a new video.

        Args:
            frames: the inputs named under "inputs" in the manifest, in that order. A picture may also be uint8
                (H, W, 3) or (B, H, W, 3); then the output is one, too.

        Returns:
            An array, or arrays by name if the programs have several outputs.

        Raises:
            RunnerError: the programs do not take so many inputs, or not of this shape.
        """
        specs, arrays = self.manifest["inputs"], [np.asarray(frame) for frame in frames]
        if len(arrays) != len(specs):
            names = ", ".join(spec["name"] for spec in specs)
            raise RunnerError(f"got {len(arrays)} inputs; the programs take {len(specs)}: {names}")
        given = {spec["name"]: self._fitted(spec, x) for spec, x in zip(specs, arrays, strict=True)}
        if self._shapes != (shapes := [x.shape for x in given.values()]):
            self.reset()
        self._shapes = shapes
        found = self._next({**given, **self._state})
        pairs = self.manifest["recurrent"]
        self._state = {pair["input"]: found[pair["output"]] for pair in pairs if pair["output"] in found}
        outputs = {spec["name"]: found[spec["name"]] for spec in self.manifest["outputs"]}
        first = next(iter(outputs.values()))
        if "picture" in specs[0] and arrays[0].dtype == "uint8":
            return _pixels(first)[0] if arrays[0].ndim == 3 else _pixels(first)
        return outputs if len(outputs) > 1 else first

    def _fitted(self, spec: Mapping[str, Any], value: Any) -> Any:
        """The input as the programs take it."""
        wanted, step = spec["shape"], self.manifest["multiple"]
        if "picture" in spec and value.ndim == len(wanted) - 1:
            value = value[None]
        if "picture" in spec and value.ndim == 4 and value.dtype == "uint8" != spec["dtype"]:
            value = value.transpose(0, 3, 1, 2) / np.float32(255)
        pairs = list(zip(wanted, spec.get("example", wanted), strict=True))
        sizes = zip(value.shape, pairs, strict=False)
        fits = all((n - example) % step == 0 if size is None else n == size for n, (size, example) in sizes)
        if not fits or value.ndim != len(wanted) or value.dtype != spec["dtype"]:
            expected = "x".join(str(n) if size is not None else f"({n}+{step}n)" for size, n in pairs)
            raise RunnerError(
                f"{spec['name']} is {value.dtype} {'x'.join(map(str, value.shape))}; the programs were exported for "
                f"{spec['dtype']} {expected}: resize the frame, or export programs for its size"
            )
        return np.ascontiguousarray(value)

    def _next(self, given: Arrays) -> Arrays:
        """Everything that the programs give for this frame."""
        opening, begun = f"opening_{self._frames}", time.perf_counter()
        self._frames += 1
        if opening in self._programs:
            return self._programs[opening](given)
        if not self._reference:
            return self._full(given, "first")
        run = functools.cache(functools.partial(self._programs["shortcut"], {**given, **self._reference}))
        look = Look(self.distance + 1, None, predict=lambda: self._predictions(run()))  # type: ignore[arg-type]
        look.times = tuple(median(times) if times else None for times in self._times)  # type: ignore[assignment]
        reason = self._reason(look, run)
        show = self.manifest["show_shortcut"] and not self.policy.guarded and reason != "condition"
        found = run() if show or look.looked or not reason else {}
        if not reason and self._finite(found):
            self.distance += 1
            self._times[1].append(time.perf_counter() - begun)
            return found
        full = self._full(given, reason or "not finite")
        if self.policy.audits and look.looked and self._reference and reason:
            name = self.manifest["outputs"][0]["name"]
            self.policy.audit(look, _psnr(found[name], full[name]))
        return {**full, **found} if reason and show else full

    def _reason(self, look: Look, run: Callable[[], Arrays]) -> str:
        """Why to refresh now; empty for a shortcut frame. Compare `Stream`."""
        ends, names = look.distance >= self.policy.interval, self.manifest["conditions"]
        if not ends and not all(np.array_equal(run()[name], self._reference[name]) for name in names):
            return "condition"
        return reason_of(self.policy, look)

    def _predictions(self, found: Arrays) -> Any:
        """The blocks' predictions as the shortcut program tells them: per branch, the worst row's signal."""
        if not self.manifest["signals"]:
            raise RunnerError("these programs give no signals for a policy: calibrate the model, and export it again")
        return tuple(SimpleNamespace(unexplained=np.max(found[name])) for name in self.manifest["signals"])

    def _full(self, given: Arrays, reason: str) -> Arrays:
        begun = time.perf_counter()
        found = self._programs["reference"](given)
        self._times[0].append(time.perf_counter() - begun)
        usable = self._finite(found)  # else the reference would spoil all frames up to the next one
        names = (*self.manifest["reference"], *self.manifest["conditions"]) if usable else ()
        self._reference = {name: found[name] for name in names}
        self.refreshes[reason if usable else "not finite"] += 1
        self.distance = 0
        return found

    def _finite(self, found: Arrays) -> bool:
        return all(bool(np.isfinite(found[spec["name"]]).all()) for spec in self.manifest["outputs"])


def _pixels(picture: Any) -> Any:
    """(B, 3, H, W) in [0, 1] as uint8 (B, H, W, 3)."""
    if picture.dtype == "uint8":
        return picture
    return (picture.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def _psnr(made: Any, target: Any) -> float:
    """As `summary.psnr`; of a batch, the worst row's."""
    most = 255 if made.dtype == "uint8" else 1
    error = np.square(made.clip(0, most) / most - target.clip(0, most) / most).reshape(len(made), -1).mean(1)
    return psnr_of(float(error.max()))


def _policy(manifest: Arrays, goal: dict[str, Any]) -> RefreshPolicy:
    """The policy that was asked for, else the exported one, whose class must be known then."""
    asked = any(goal.get(name) is not None for name in ("refresh", "quality", "speed"))
    saved: Arrays = manifest["refresh"]
    usual, warning = (Every(saved["interval"]), None) if asked else from_recipe(saved)
    if warning is not None:
        warnings.warn(warning, stacklevel=3)
    return policy_for(usual, manifest["horizon"], Calibration.from_recipe(manifest["calibration"]), **goal)
