"""`fit`: distillation in one call, with settings that suit a few minutes on the hardware at hand."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from shortcutv2v.adapter import Adapter
from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.bar import say
from shortcutv2v.distill.cache.store import drop_features
from shortcutv2v.distill.checks import check_end, check_kind, check_path, checked_folder, only_run_in
from shortcutv2v.distill.clips import FrameSource, Source, hold_out
from shortcutv2v.distill.datamodule import ClipData
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.pace import caching_seconds, frame_cost
from shortcutv2v.distill.settings import Settings, settings_of
from shortcutv2v.distill.trainer import check_readable, make_trainer, run
from shortcutv2v.errors import InputError
from shortcutv2v.goals import policy_for
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.player import Player
from shortcutv2v.translate import from_uint8

__all__ = ["fit", "materialise"]

_CALIBRATION = 60
"""Most frames of a calibration."""
_LONG = 10.0
"""Seconds of caching that are announced."""


@torch.inference_mode(False)  # the caller may be in a mode for inference
@torch.enable_grad()
def fit(
    model: ShortcutV2V,
    source: Source | Sequence[Source],
    *,
    minutes: float | None = 5.0,
    steps: int | None = None,
    adapter: Adapter | None = None,
    validation: Source | Sequence[Source] | None = "auto",
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    quality: str | float | None = None,
    distiller: type[Distiller] = Distiller,
    settings: Settings | None = None,
    **changes: Any,
) -> Distiller:
    """Distil the blocks of `model` on some clips, in place.

    Args:
        model: a wrapped teacher.
        source: one or several of: video file, folder of videos, folder of frames, object with `len` and
            `[i] -> uint8 (3, H, W)`.
        minutes: how long to train, validations included; they begin with the first step, after features are cached. A
            resumed run has what was left of them. None to train for a number of steps.
        steps: number of training steps at most; None to go by time alone. `max_steps` is taken for it, too.
        adapter: how frames become the teacher's inputs; default: the frame itself in, the output itself out.
        validation: clips that are not trained on. They give PSNR to the teacher beside the free baselines, on up to
            eight windows of an interval drawn from all of them. "auto" holds out the last tenth of long clips; None
            trains on all and validates nothing.
        folder: where checkpoints (`last.ckpt`) and TensorBoard logs (`logs/`) go. None writes nothing, except the batch
            of a loss that is not finite, to the system's temporary folder.
        resume: a checkpoint to go on from. A run that was killed and resumed ends as one that was not, bit for bit, if
            the end is given in steps (and the `schedule` too, if the first run was to end earlier).
        quality: train for `model.stream(quality=...)`: pairs as far apart as such a stream makes them, a calibration on
            the validation clips at the end, and this quality as the model's refresh policy.
        distiller: a subclass of `Distiller` to train with.
        settings: all other options, see `Settings`.
        changes: options of `Settings` and `TrainerSettings` by name, such as `lr=1e-4`, `crop=128` or
            `precision="bf16-mixed"`; they replace those of `settings`.

    Returns:
        The `Distiller`, whose `trainer.callback_metrics` hold the last losses and PSNR values, and whose `verdict` says
            in a sentence what was reached.

    Raises:
        InputError: neither a time nor a number of steps is given, an option is out of range or would not be used,
            the clips cannot be used, or another run trains in `folder`.
        VideoError: no clip can be read.
        CheckpointError: `resume` is of another cut or teacher, or a checkpoint cannot be written.
        NonFiniteLossError: a loss became infinite or not a number.
        KeyboardInterrupt: by Ctrl-C; the message names the checkpoint to resume from.

    Warns:
        UserWarning: some files are no clips, or some frames cannot be read; it counts them.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> clip = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
        >>> fit(model, clip, minutes=None, steps=2, progress=False).trainer.global_step
        2
    """
    steps = changes.pop("max_steps", steps)
    steps = None if steps == -1 else steps  # Lightning's word for no limit
    check_end(minutes, steps)
    given = settings_of(settings, changes)
    chosen: Settings = given.filled()
    _check_arguments(model, adapter, distiller, folder, resume)
    if quality is not None:
        model.refresh = policy_for(model.refresh, max(model.horizon, model.max_interval), None, quality=quality)
    data = ClipData(source, None if validation == "auto" else validation, chosen)
    data.fixed = given.crop is not None or given.batch_size is not None
    check_adapter(adapter or Adapter.of(model), from_uint8(data.clips[0][0]))
    materialise(model, adapter, data.clips[0])
    module = distiller(model, adapter, settings=chosen)
    if validation == "auto":
        data.clips, data.held_out = hold_out(data.clips, data.window(model, module.adapter))
    device, _ = placement(model.teacher)
    trainer = make_trainer(chosen, minutes, steps, folder, validate=data.held_out is not None)
    try:
        with only_run_in(folder), _features_of(module, data, minutes, folder, resume):
            run(trainer, module, data, resume)
    finally:
        module.to(device)  # Lightning leaves it on the CPU
        model.eval()
    if quality is not None:
        _calibrate(model, module.adapter, data, quality)
    return module


def _calibrate(model: ShortcutV2V, adapter: Adapter, data: ClipData, quality: str | float) -> None:
    """Learn what the blocks' signal means, on clips that they have not seen; without any, audits do it alone."""
    with contextlib.suppress(InputError):  # too little moves in them
        clips = [(clip[i] for i in range(len(clip))) for clip in data.held_out or ()]
        if clips:
            model.calibrate(clips, adapter, interval=model.max_interval, frames=_CALIBRATION)
    model.refresh = policy_for(model.refresh, model.max_interval, model.calibration, quality=quality)


def _check_arguments(model: object, adapter: object, distiller: object, folder: Any, resume: object) -> None:
    """Raise `InputError` if an argument is of the wrong kind, or the folder cannot be made."""
    check_kind("model", model, ShortcutV2V, "wrap the teacher with shortcutv2v.wrap()", optional=False)
    check_kind("adapter", adapter, Adapter, "give an object")
    if not (isinstance(distiller, type) and issubclass(distiller, Distiller)):
        raise InputError(f"distiller must be Distiller or a subclass of it, the class itself, got {distiller!r:.80}")
    check_path("folder", folder)
    check_path("resume", resume)
    if folder is not None:
        checked_folder(folder)


@torch.no_grad()
def materialise(model: ShortcutV2V, adapter: Adapter | None, clip: FrameSource) -> None:
    """Show the first frames of a clip to a model that was wrapped without example inputs, until it has its blocks."""
    player = Player(adapter or Adapter.of(model), lambda *args, **kwargs: model.reference(*args, **kwargs)[0])
    for number in range(len(clip)):
        if model.materialised:
            break
        player(from_uint8(clip[number], model.teacher))


@contextlib.contextmanager
def _features_of(
    module: Distiller, data: ClipData, minutes: float | None, folder: str | Path | None, resume: str | Path | None
) -> Iterator[None]:
    """Choose what depends on this machine's speed; a cache that was chosen automatically is emptied after the run."""
    own: Path | None = None
    # Several processes would each decide for themselves.
    alone = data.settings.trainer.devices in (1, "1") and data.settings.trainer.strategy == "auto"
    with contextlib.ExitStack() as stack:
        if resume is not None:
            data.repeat(check_readable(Path(resume)).get(ClipData.__qualname__, {}))
        elif alone:
            data.minutes = minutes
        if alone and data.settings.cache == "auto" and not module.rollout.feeds_itself:
            place = folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="shortcutv2v-"))
            data.cache = own = _features_folder(module, data, minutes, Path(place), resume)
        yield
        drop_features(own)


def _features_folder(
    module: Distiller, data: ClipData, minutes: float | None, folder: Path, resume: str | Path | None
) -> Path | None:
    """Return `folder/features` if caching pays, else None; a resumed run does as its checkpoint says."""
    if resume is not None:
        # Measured again, the choice could be another one. Features beside the checkpoint are used again.
        left = Path(resume).parent / "features"
        return None if not data.cached else left if left.is_dir() else folder / "features"
    if minutes is None:
        return None
    cost = frame_cost(module.model, module.adapter, data.clips[0])
    seconds = caching_seconds(cost, data.clips, minutes, data.step_pixels, folder)
    if seconds is not None and seconds > _LONG and data.settings.progress:
        frames = sum(len(clip) for clip in data.clips)
        say(f"caching the features of {frames} frames takes about {_duration(seconds)}, then training begins")
    return None if seconds is None else folder / "features"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"
