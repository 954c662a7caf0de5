"""Times of frames and steps on this machine, measured before training, and the choices that follow from them."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.cache.features import Features, first_features
from shortcutv2v.distill.cache.store import StoredClip
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.plan import Batches, Plan, Work
from shortcutv2v.errors import InputError
from shortcutv2v.graph.protect import same_modes, same_random_state
from shortcutv2v.model import ShortcutV2V

__all__ = [
    "LIMIT_GB",
    "FrameCost",
    "StepCost",
    "ValidationPace",
    "caching_seconds",
    "choose_plan",
    "frame_cost",
    "timed",
    "validation_interval",
    "validation_pace",
]

LIMIT_GB = 8.0
"""Largest size of the features that are cached automatically."""
SLOW = 3.0
"""Seconds of a step above which its work is reduced; shorter ones are worth their larger batch."""
_TARGET = 1.0
"""Seconds that a reduced step should take, on average."""
_PROBE = 0.4
"""Seconds of a measured step from which longer ones are estimated in proportion."""
_SHARE = 0.2
"""Largest share of the run's time for computing features; a step on them takes about two thirds of the time."""
_VALIDATING = 0.1
"""Largest share of the run's time for validation."""
MAX_WINDOWS = 8
_SIDES = (192, 128, 96, 64, 48, 32)
_EVERY = 4


@dataclass(frozen=True)
class FrameCost:
    """Seconds that the teacher takes for one frame of the first clip.

    Attributes:
        features: for head and middle.
        picture: for the tail.
        example: features of the frame.
    """

    features: float
    picture: float
    example: Features


@torch.no_grad()
def frame_cost(model: ShortcutV2V, adapter: Adapter, clip: FrameSource) -> FrameCost | None:
    """Measure one frame, the second time it runs; None if the adapter makes all frames itself."""
    frame = clip[0][None]
    if first_features(model, adapter, frame) is None:
        return None
    features, example = timed(lambda: first_features(model, adapter, frame))
    picture, _ = timed(lambda: model.tail(example.carry, example.f))
    return FrameCost(features, picture, example)


def caching_seconds(
    cost: FrameCost | None, clips: Sequence[FrameSource], minutes: float | None, step_pixels: int, folder: Path
) -> float | None:
    """Estimate the seconds that it takes to cache the features of all clips; None if it does not pay.

    It pays if it takes less than a fifth of the run, or less than the run if the teacher alone would take more than a
    second of every step. Features must fit into 8 GB and half of the free disk.

    Args:
        cost: of a frame of the first clip.
        clips: the clips to train on.
        minutes: length of the run. None, for a run that ends by steps, is not worth an estimate.
        step_pixels: pixels that the teacher sees in a step without a cache.
        folder: where features would go.
    """
    if minutes is None or cost is None:
        return None
    pixels = clips[0][0][0].numel()
    scale = sum(len(clip) * clip[0][0].numel() for clip in clips) / pixels
    heavy = cost.features * step_pixels / pixels > _TARGET
    allowed = (1.0 if heavy else _SHARE) * 60 * minutes
    needed = scale * StoredClip(Path(), cost.example, (0, 0, 0), 1).nbytes
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    room = min(LIMIT_GB * 1e9, shutil.disk_usage(existing).free / 2)
    seconds = scale * cost.features
    return seconds if seconds < allowed and needed < room else None


@dataclass(frozen=True)
class StepCost:
    """Seconds per pixel of a training step.

    Attributes:
        features: of a step without losses of pictures.
        pictures: of a step with them.
    """

    features: float
    pictures: float

    def seconds(self, work: Work) -> float:
        """Estimate the seconds of some work."""
        return work.batch_size * _pixels(work) * (self.pictures if work.pictures else self.features)

    def average(self, plan: Plan) -> float:
        """Estimate the seconds of an average step."""
        return sum(self.seconds(plan.work(number)) for number in range(plan.every)) / plan.every


def choose_plan(module: Any, samples: Any, usual: Plan, fixed: bool) -> tuple[Plan, float]:
    """Choose the work of a step so that it takes about a second, and estimate how long it takes.

    Steps of growing size are measured, forwards and backwards, until one takes long enough to judge by. The usual work
    is kept if it takes up to three seconds. The chosen work is done once, since a capture of new sizes takes time.

    Args:
        module: the `Distiller`, on its device.
        samples: the training samples.
        usual: the work that suits the hardware.
        fixed: keep it in any case, and only estimate.
    """
    separate = bool(module.weights.feature or module.weights.alignment)
    with _undone(module):
        cost = _measure(module, samples, usual, separate)
        plan = usual if fixed or cost.average(usual) <= SLOW else _reduced(cost, samples, usual, separate)
        for work in {plan.work(0), plan.work(1)}:
            _step(module, samples, work)
    return plan, cost.average(plan)


def _reduced(cost: StepCost, samples: Any, usual: Plan, separate: bool) -> Plan:
    """Return less work than the usual; with losses of features, those of pictures have crops of their own."""
    if not separate:
        return _largest(cost, samples, usual, _TARGET, pictures=True)
    plan = _largest(cost, samples, usual, 0.75 * _TARGET, pictures=False)
    left = _EVERY * _TARGET - (_EVERY - 1) * cost.seconds(Work(plan.batch_size, plan.crop, False))
    small = _largest(cost, samples, plan, max(left, _TARGET), pictures=True)
    return Plan(plan.batch_size, plan.crop, _EVERY, small.batch_size, small.crop)


def _largest(cost: StepCost, samples: Any, usual: Plan, seconds: float, *, pictures: bool) -> Plan:
    """Return the largest crop of which two fit into some seconds, and as many of it as do; at least one."""
    best = usual
    for crop in _crops(usual.crop):
        one = cost.seconds(Work(1, crop, pictures))
        if crop == usual.crop or _allows(samples, crop):
            best = Plan(max(1, min(usual.batch_size, int(seconds / one))), crop)
            if 2 * one <= seconds:
                break
    return best


def _crops(usual: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Return the usual crop and smaller ones, largest first."""
    if usual is None:
        return []
    return [usual, *((min(side, usual[0]), min(side, usual[1])) for side in _SIDES if side < max(usual))]


def _allows(samples: Any, crop: tuple[int, int]) -> bool:
    """Return True if samples can be cut to this crop, that is, to multiples of the features' strides."""
    if not samples.croppable:
        return False
    try:
        samples.add_crop(crop)
    except InputError:
        return False
    return True


def _measure(module: Any, samples: Any, usual: Plan, separate: bool) -> StepCost:
    cost = StepCost(0.0, 0.0)
    small = next((crop for crop in reversed(_crops(usual.crop)[1:]) if _allows(samples, crop)), usual.crop)
    for work in (Work(1, small), Work(1, usual.crop), Work(usual.batch_size, usual.crop)):
        found = []
        for pictures in (False, True) if separate else (True,):
            step = functools.partial(_step, module, samples, work._replace(pictures=pictures))
            step()  # the first of its kind prepares
            seconds = timed(step)[0]
            if seconds < _PROBE / 2:  # short times vary
                seconds = min(seconds, timed(step)[0])
            found.append(seconds / (work.batch_size * _pixels(work)))
        cost = StepCost(found[0], max(found))
        if cost.seconds(work) > _PROBE:
            break
    return cost


def _pixels(work: Work) -> int:
    return work.crop[0] * work.crop[1] if work.crop is not None else 1


def _step(module: Any, samples: Any, work: Work) -> None:
    """Do the work of a step on the first samples, without changing weights."""
    plan = Plan(work.batch_size, work.crop, *(() if work.pictures else (2,)))
    strategy = module.trainer.strategy
    batch = strategy.batch_to_device(Batches(samples, plan)[1], strategy.root_device, 0)
    with module.trainer.precision_plugin.forward_context():
        total, _ = module.objective(batch)
    total.backward()
    module.zero_grad(set_to_none=True)


@contextlib.contextmanager
def _undone(module: Any) -> Iterator[None]:
    """Leave statistics, modes and random generators as they were; weights do not change without an optimiser."""
    kept = [(buffer, buffer.clone()) for each in (module, module.model.teacher) for buffer in each.buffers()]
    try:
        with same_random_state(), same_modes(module):
            module.train()
            yield
    finally:
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)


def validation_interval(steps: int | None) -> int:
    """Return the steps from one validation to the next: 100, or a quarter of a short run.

    Examples:
        >>> [validation_interval(steps) for steps in (None, 1000, 80, 8)]
        [100, 100, 20, 10]
    """
    return 100 if steps is None else min(100, max(10, steps // 4))


class ValidationPace(NamedTuple):
    """Steps from one validation to the next, the number of windows it looks at, and the seconds that it takes."""

    every: int
    windows: int
    seconds: float


def validation_pace(cost: FrameCost | None, length: int, minutes: float, step: float) -> ValidationPace:
    """Return how often to validate and on how many windows, so that it takes at most a tenth of the run.

    Args:
        cost: of a frame of the first clip to validate on.
        length: frames of a window.
        minutes: length of the run.
        step: seconds of a training step.

    Examples:
        >>> fast = FrameCost(0.1, 0.02, None)
        >>> validation_pace(fast, 3, minutes=5, step=0.6)[:2], validation_pace(fast, 3, minutes=0.5, step=0.6)[:2]
        ((100, 8), (12, 1))
    """
    steps = max(1, int(60 * minutes / step))
    every = validation_interval(steps)
    if cost is None:
        return ValidationPace(every, MAX_WINDOWS, 0.0)
    window = length * (cost.features + cost.picture) + 2 * (length - 1) * cost.picture
    windows = _VALIDATING * 60 * minutes / window
    count = int(windows / (steps // every + 1))
    if count < 1:  # only at the end
        every, count = steps, max(1, int(windows))
    count = min(MAX_WINDOWS, count)
    return ValidationPace(every, count, count * window)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of some work, and its result. On a CPU, waiting for other processes does not count."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun, used = time.perf_counter(), time.process_time()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter() - begun, result
    return min(time.perf_counter() - begun, time.process_time() - used), result
