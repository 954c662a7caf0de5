"""Distillation in one call, with settings that suit a few minutes on whatever hardware is at hand."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from shortcutv2v.adapter import Adapter
from shortcutv2v.distill.cache.worth import drop_features
from shortcutv2v.distill.checks import check_run, checked_folder
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.distill.feed import ClipData
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.presets import Preset, find_preset
from shortcutv2v.distill.progress import quiet_lightning
from shortcutv2v.distill.running import (
    callbacks_of,
    features_folder,
    misconfigured,
    run,
    time_limit,
    trainer_settings,
    writers,
)
from shortcutv2v.distill.sources import Source
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.player import Player
from shortcutv2v.translate import from_uint8

__all__ = ["data_of", "distiller_of", "fit", "suited", "weights_of"]


@torch.inference_mode(False)  # whoever calls may be in a mode for inference
@torch.enable_grad()
def fit(
    model: ShortcutV2V,
    source: Source | Sequence[Source],
    *,
    minutes: float | None = 5.0,
    max_steps: int = -1,
    adapter: Adapter | None = None,
    validation: Source | Sequence[Source] | None = None,
    preset: str | Preset | None = None,
    size: int | tuple[int, int] | None = None,
    crop: int | None = None,
    batch_size: int | None = None,
    frames: int | None = None,
    cache: str | Path | None = "auto",
    lr: float | None = None,
    weights: LossWeights | None = None,
    perceptual: nn.Module | None = None,
    ema: float | None = None,
    patience: int | None = 10,
    schedule: int | None = None,
    precision: str = "32-true",
    seed: int = 0,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    save_every: int = 50,
    progress: bool = True,
    distiller: type[Distiller] = Distiller,
) -> Distiller:
    """Distil the blocks of `model` on some clips, in place.

    Args:
        model: a wrapped teacher.
        source: one or several of: video file, folder of videos, folder of frames, object with `len` and
            `[i] -> uint8 (3, H, W)`.
        minutes: how long to train, validations on the way included; a resumed run has what was left of them. None to go
            by `max_steps` alone.
        max_steps: how many steps to train at most; -1 to go by time alone.
        adapter: see `Distiller`.
        validation: clips that are not trained on; gives PSNR to the teacher beside the free baselines, on eight windows
            of an interval drawn from all of them.
        preset: the paper's settings for a task, `v2c`, `l2v`, `e2f`, `l2c` or `vtoonify`, instead of those for a short
            run. What is given beside it counts. Its perceptual loss needs VGG weights: see `Preset`.
        size: read clips at this size: a height, or (H, W).
        crop: side of the square training crops, in pixels; smaller frames are used whole. Default: what suits the
            hardware, see `suited`.
        batch_size: samples per step. Default: the preset's, or what suits the hardware.
        frames: length of the sequences that recurrent teachers are trained on, see `ClipData`.
        cache: a folder to keep the teacher's features in, see `FeatureCache`: a step then runs neither head nor middle,
            and frames are not flipped. They are computed before the minutes begin. "auto": where it pays (see
            `caching_pays`), in `folder/features` or a temporary folder until the run has ended. None: in every step.
        lr: learning rate at the start; decays linearly to zero over the second half. Default: the preset's, or 1e-3.
        weights: of the losses. Default: the preset's, or those that need no downloads, `LossWeights.plain()`.
        perceptual: a module for the perceptual loss, see `Distiller`.
        ema: decay of an average of the weights, which is then what is validated and kept; see `EMA`. Default: none.
        patience: validations (one every 100 steps, or four in a shorter run) without a gain after which the run ends
            early; None for never.
        schedule: steps over which the rate decays, where a run is to be resumed later; default: this run's length.
        precision: of the training steps, as `pytorch_lightning.Trainer` takes it, such as "bf16-mixed". "bf16-true" and
            "16-true" are refused: they would round the teacher.
        seed: decides crops, pairs, what the teacher draws in a step, and nothing else.
        folder: where checkpoints (`last.ckpt`) and TensorBoard logs (`logs/`) go; None writes nothing (but the batch of
            a loss that is not finite, to the system's temporary folder).
        resume: a checkpoint to go on from. A run that was killed and resumed ends as one that was not, bit for bit,
            where the end is given in steps (and, of runs that were to end earlier, the `schedule` too).
        save_every: steps from one checkpoint to the next; each replaces the last, whole or not at all.
        progress: show a progress bar.
        distiller: a subclass of `Distiller` to train with.

    Returns:
        The `Distiller`, whose `trainer.callback_metrics` hold the last losses and PSNR values.

    Raises:
        InputError: neither a time nor a number of steps is given, an option is out of range or would not be used, or
            the clips do not serve.
        VideoError: no clip can be read.
        CheckpointError: `resume` is of another cut or teacher, or a checkpoint cannot be written.
        NonFiniteLossError: a loss became infinite or not a number.
        KeyboardInterrupt: by Ctrl-C; the message names the checkpoint to resume from.

    Warns:
        UserWarning: files that are no clips, or frames that cannot be read, are left out; it counts them.

    Examples:
        >>> import shortcutv2v
        >>> teacher = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> clip = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
        >>> fit(model, clip, minutes=None, max_steps=2, progress=False).trainer.global_step
        2
    """
    watched: dict[str, Any] = {"seed": seed, "ema": ema, "patience": patience, "save_every": save_every}
    check_run(minutes=minutes, steps=max_steps, precision=precision, **watched)
    if not (isinstance(distiller, type) and issubclass(distiller, Distiller)):
        raise InputError(f"distiller must be Distiller or a subclass of it, the class itself, got {distiller!r:.80}")
    if folder is not None:
        checked_folder(folder)
    chosen = find_preset(preset) if isinstance(preset, str) else preset
    changes = {"lr": lr, "weights": weights, "perceptual": perceptual, "schedule": schedule}
    data = data_of(source, validation, chosen, size=size, crop=crop, batch_size=batch_size, frames=frames, seed=seed)
    materialise(model, adapter, data.clips[0])
    module = distiller_of(model, adapter, chosen, distiller, **changes)
    device, _ = placement(model.teacher)
    watch = callbacks_of(folder, validate=validation is not None, progress=progress, **watched)
    with quiet_lightning(), misconfigured():
        limits: dict[str, Any] = {"max_time": time_limit(minutes), "max_steps": max_steps, "precision": precision}
        trainer = pl.Trainer(**trainer_settings(folder, max_steps), **writers(folder), **limits, callbacks=watch)
    try:
        with _features_of(cache, module, data, minutes, folder, resume):
            run(trainer, module, data, resume)
    finally:
        module.to(device)  # Lightning leaves it on the CPU
        model.eval()
    return module


@torch.no_grad()
def materialise(model: ShortcutV2V, adapter: Adapter | None, clip: FrameSource) -> None:
    """Show the clip's first frames to a model that was wrapped without example inputs, until it has its blocks."""
    player = Player(adapter or Adapter.of(model), lambda *args, **kwargs: model.reference(*args, **kwargs)[0])
    for number in range(len(clip)):
        if model.materialised:
            break
        player(from_uint8(clip[number]).to(*placement(model.teacher)))


@contextlib.contextmanager
def _features_of(
    cache: str | Path | None,
    module: Distiller,
    data: ClipData,
    minutes: float | None,
    folder: str | Path | None,
    resume: str | Path | None,
) -> Iterator[None]:
    """Give `data` its cache; a temporary one lives as long as the context."""
    own: Path | None = None
    with contextlib.ExitStack() as stack:
        if cache == "auto":
            place = folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="shortcutv2v-"))
            cache = own = features_folder(module, data.clips, minutes, place, resume)
        data.cache = cache
        yield
        drop_features(own)


def data_of(
    source: Source | Sequence[Source],
    validation: Source | Sequence[Source] | None,
    preset: Preset | None,
    **changes: Any,
) -> ClipData:
    """Clips as the preset wants them, or as they suit a short run on the hardware at hand.

    Args:
        source: clips to train on.
        validation: clips to validate on.
        preset: None for a short run.
        changes: arguments of `ClipData` that replace these, unless they are None.
    """
    settings: dict[str, Any] = suited()
    if preset is not None:
        settings |= {"batch_size": preset.batch_size, "kind": preset.data}
    return ClipData(source, validation, **settings | _given(changes))


def distiller_of(
    model: ShortcutV2V,
    adapter: Adapter | None,
    preset: Preset | None,
    kind: type[Distiller] = Distiller,
    **changes: Any,
) -> Distiller:
    """The preset's `Distiller`, or one for a short run: Adam at 1e-3 with betas (0.9, 0.99), no downloads.

    Args:
        model: a wrapped teacher.
        adapter: see `Distiller`.
        preset: None for a short run.
        kind: `Distiller` or a subclass.
        changes: arguments of `Distiller` that replace these, unless they are None.
    """
    if not isinstance(preset, Preset | None):
        raise InputError(f"preset must be a name or a Preset, got {preset!r:.80}")
    if preset is not None:
        return preset.distiller(model, adapter, kind, **_given(changes))
    settings: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99)}
    return kind(model, adapter, **settings | _given(changes))


def weights_of(preset: Preset | None, changes: Mapping[str, float]) -> LossWeights:
    """The preset's weights, or `LossWeights.plain()`, with some of them changed.

    Raises:
        InputError: a change names no loss.

    Examples:
        >>> weights_of(None, {"feature": 3.0}).feature
        3.0
    """
    weights = LossWeights.plain() if preset is None else preset.weights
    known = [field.name for field in dataclasses.fields(weights)]
    if unknown := sorted(set(changes) - set(known)):
        raise InputError(f"no loss {', '.join(unknown)}: expected some of {', '.join(known)}")
    return dataclasses.replace(weights, **changes)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def suited() -> dict[str, int]:
    """Crop, batch and workers for the hardware at hand.

    On a GPU larger crops and the paper's batch of 16 keep it busy, with processes that read ahead; on a CPU a step
    should take a second or so, and reading in the training process costs nothing worth a process.
    """
    if torch.cuda.is_available():
        return {"crop": 192, "batch_size": 16, "num_workers": 4}
    return {"crop": 96, "batch_size": 8, "num_workers": 0}
