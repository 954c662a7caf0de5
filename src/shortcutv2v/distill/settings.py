"""The options of a training run, declared once: `fit`, `Distiller`, `ClipData` and the command line read them here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.checks import check_kind, check_path, check_precision, check_size
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.distill.presets import Preset, find_preset
from shortcutv2v.errors import InputError, check_number, near_matches

__all__ = ["Settings", "TrainerSettings", "settings_of", "weights_of"]


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Options of `pytorch_lightning.Trainer` that `fit` passes on.

    Attributes:
        precision: of the training steps, such as bf16-mixed; bf16-true and 16-true are refused: they round the teacher
        devices: number of devices, or "auto" for all
        accelerator: cpu, cuda, ..., or "auto" for the fastest
        strategy: how several devices share the work, such as ddp
        accumulate_grad_batches: batches per optimiser step
        gradient_clip_val: largest norm of the gradient; null for no limit
        val_check_interval: steps from one validation to the next; null: 100, or a quarter of a short run
        limit_val_batches: windows that a validation looks at
        log_every_n_steps: steps from one log entry to the next
    """

    precision: str = "32-true"
    devices: int | str | list[int] = 1
    accelerator: str = "auto"
    strategy: str = "auto"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    val_check_interval: int | None = None
    limit_val_batches: int = 8
    log_every_n_steps: int = 10

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if isinstance(self.devices, int) and self.devices != -1:
            check_number("trainer.devices", self.devices, 1, 1024, whole=True)
        for name in ("accumulate_grad_batches", "limit_val_batches", "log_every_n_steps"):
            check_number(f"trainer.{name}", getattr(self, name), 1, 1e9, whole=True)
        if self.val_check_interval is not None:
            check_number("trainer.val_check_interval", self.val_check_interval, 1, 1e9, whole=True)
        if self.gradient_clip_val is not None:
            check_number("trainer.gradient_clip_val", self.gradient_clip_val, 0, inside=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of a training run. None stands for the preset's value, or for the usual one of a short run.

    Attributes:
        preset: the paper's settings for a task: v2c, l2v, e2f, l2c or vtoonify; other options given replace its values
        size: read clips at this size: a height, or (height, width)
        crop: side of the square training crops in pixels; smaller frames are used whole
        batch_size: samples per step and device
        kind: samples are pairs (reference, current), or sequences for recurrent teachers; auto: by the adapter
        frames: length of a sequence; null: one interval, and the frames that the adapter opens a video with
        cache: folder to keep the teacher's features in; auto: for this run, if that pays; null: nowhere
        workers: processes that read frames; 0 reads in the training process
        seed: decides crops, pairs and all that the teacher draws in a step
        lr: learning rate; constant, then linear to zero; null: the preset's, or 1e-3 (in a plain `Distiller` 2e-4)
        lr_discriminator: learning rate of the discriminators; null: the preset's, or 2e-7
        betas: of Adam; null: the preset's, or [0.9, 0.99] (in a plain `Distiller` [0.5, 0.999])
        decay: last share of the run, in which the rates fall to zero; null: 0.5
        schedule: steps over which the rates decay, if the run is to be resumed later; null: this run's length
        weights: of the losses; null: the preset's, or `LossWeights.plain()`, which needs no downloads
        perceptual: distance of pictures for the perceptual loss, a module (picture, target); null: `VGGPerceptual()`
        adversary: discriminators for the GAN losses; null: `Adversary()`
        feedback: what a recurrent teacher gets back on shortcut frames: teacher, or own for the shortcut's outputs
        truncate: with feedback own, the number of frames that gradients flow back through
        ema: decay of an average of the weights, which is then validated and kept
        patience: validations without a gain that end the run; null: none do
        save_every: steps from one checkpoint to the next
        progress: show progress bars
        trainer: options of Lightning's trainer

    Raises:
        InputError: a value is out of range.

    Examples:
        >>> Settings(lr=1e-4).lr
        0.0001
        >>> Settings(preset="v2c", lr=1e-4).filled().batch_size
        16
    """

    preset: str | Preset | None = None
    size: int | tuple[int, int] | None = None
    crop: int | None = None
    batch_size: int | None = None
    kind: Literal["auto", "pairs", "sequences"] | None = None
    frames: int | None = None
    cache: str | Path | None = "auto"
    workers: int | None = None
    seed: int = 0
    lr: float | None = None
    lr_discriminator: float | None = None
    betas: tuple[float, float] | None = None
    decay: float | None = None
    schedule: int | None = None
    weights: LossWeights | None = None
    perceptual: nn.Module | None = None
    adversary: Adversary | None = None
    feedback: Literal["teacher", "own"] | None = None
    truncate: int | None = None
    ema: float | None = None
    patience: int | None = 10
    save_every: int = 50
    progress: bool = True
    trainer: TrainerSettings = field(default_factory=TrainerSettings)

    def __post_init__(self) -> None:
        for name, (label, limits) in _NUMBERS.items():
            if (value := getattr(self, name)) is not None or name in ("seed", "save_every"):
                check_number(label, value, **limits)
        for name, (kind, advice) in _KINDS.items():
            check_kind(name, getattr(self, name), kind, advice)
        if self.preset is not None and not isinstance(self.preset, str | Preset):
            raise InputError(f"preset must be a name or a Preset, got {self.preset!r:.80}")
        for name, (what, choices) in _CHOICES.items():
            if (value := getattr(self, name)) not in (None, *choices):
                raise InputError(f"unknown {what} {value!r}: expected one of {', '.join(choices)}")
        check_kind("trainer", self.trainer, TrainerSettings, "give TrainerSettings(...)", optional=False)
        check_path("cache", self.cache)
        check_kind("progress", self.progress, bool, "give True or False", optional=False)
        check_size(self.size)
        if self.betas is not None:
            if not (isinstance(self.betas, tuple | list) and len(self.betas) == 2):
                raise InputError(f"betas must be two numbers, such as (0.9, 0.99), got {self.betas!r}")
            for beta in self.betas:
                check_number("each of betas", beta, 0, 0.999999)

    def filled(self, *, short: bool = True) -> Any:
        """The same settings with the preset's values, or the usual ones, instead of None.

        Args:
            short: take the rates of a short run, as `fit` does; else the paper's for Unsup, as `Distiller` does.

        Raises:
            InputError: no preset of that name, or an option is given that would change nothing.
        """
        preset = find_preset(self.preset) if isinstance(self.preset, str) else self.preset
        usual = _usual(short) | ({} if preset is None else vars(preset))
        names = [each.name for each in dataclasses.fields(self)]
        missing = {name: usual[name] for name in names if name in usual and getattr(self, name) is None}
        found = dataclasses.replace(self, preset=preset, **missing)
        found._check_used()
        return found

    def _check_used(self) -> None:
        weights: Any = self.weights
        if self.perceptual is not None and not weights.perceptual:
            raise InputError(
                "perceptual is given, but the weight of the perceptual loss is 0: give it one, "
                "weights=LossWeights(...) or --weights.perceptual 10, or leave perceptual out"
            )
        if self.adversary is not None and not (weights.gan or weights.temporal_gan):
            raise InputError(
                "adversary is given, but the weights gan and temporal_gan are 0: give one of them a weight, "
                "weights=LossWeights(...) or --weights.gan 1, or leave adversary out"
            )
        if self.truncate is not None and self.feedback != "own":
            raise InputError('truncate is for feedback="own": give both, or neither')

    def plain(self) -> dict[str, Any]:
        """The settings as a flat dictionary of plain values, for loggers."""
        found = {name: value for name, value in vars(self).items() if name != "trainer"} | vars(self.trainer)
        simple = {name: value if isinstance(value, int | float) else str(value) for name, value in found.items()}
        return {name: value for name, value in simple.items() if value != "None"}


_CHOICES = {"kind": ("kind of data", ("auto", "pairs", "sequences")), "feedback": ("feedback", ("teacher", "own"))}
_KINDS: dict[str, tuple[type, str]] = {
    "weights": (LossWeights, "give LossWeights(feature=5, ...)"),
    "perceptual": (nn.Module, "give an object, such as VGGPerceptual()"),
    "adversary": (Adversary, "give an object, such as Adversary(form='hinge')"),
}
# Values above `high` are typing errors: they would fill the memory before anything is said.
_NUMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "crop": ("crop, the side of a square,", {"low": 1, "high": 16384, "whole": True}),
    "batch_size": ("batch_size", {"low": 1, "high": 1024, "whole": True}),
    "frames": ("frames, the length of a sequence,", {"low": 2, "high": 1024, "whole": True}),
    "workers": ("workers, the number of reading processes,", {"low": 0, "high": 64, "whole": True}),
    "seed": ("seed", {"low": 0, "high": 2**32 - 1, "whole": True}),
    "lr": ("lr", {"low": 0}),
    "lr_discriminator": ("lr_discriminator", {"low": 0}),
    "decay": ("decay", {"low": 0, "high": 1}),
    "schedule": ("schedule", {"low": 1, "whole": True}),
    "truncate": ("truncate", {"low": 1, "whole": True}),
    "ema": ("ema", {"low": 0, "high": 1, "inside": True}),
    "patience": ("patience", {"low": 1, "whole": True}),
    "save_every": ("save_every", {"low": 1, "whole": True}),
}


def _usual(short: bool) -> dict[str, Any]:
    """Values for a run without a preset; crop, batch and workers by the hardware.

    On a GPU larger crops and the paper's batch of 16 keep it busy, with processes that read ahead; on a CPU a step
    should take about a second, and reading in the training process costs nothing worth a process.
    """
    rates: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99)} if short else {"lr": 2e-4, "betas": (0.5, 0.999)}
    always = {
        **rates,
        "lr_discriminator": 2e-7,
        "decay": 0.5,
        "weights": LossWeights.plain(),
        "kind": "auto",
        "feedback": "teacher",
    }
    if torch.cuda.is_available():
        return {**always, "crop": 192, "batch_size": 16, "workers": 4}
    return {**always, "crop": 96, "batch_size": 8, "workers": 0}


def settings_of(settings: Settings | None, changes: Mapping[str, Any]) -> Settings:
    """`settings` with some options changed by name, those of its `trainer` included.

    Raises:
        InputError: there is no such option; the message lists near matches.

    Examples:
        >>> settings_of(None, {"lr": 0.1, "precision": "bf16-mixed"}).trainer.precision
        'bf16-mixed'
        >>> settings_of(None, {"learning_rate": 0.1, "bach_size": 2})
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: no option bach_size: did you mean batch_size?
    """
    base = Settings() if settings is None else settings
    check_kind("settings", base, Settings, "give Settings(lr=1e-3, ...)")
    own = {each.name for each in dataclasses.fields(Settings)}
    trainers = {each.name for each in dataclasses.fields(TrainerSettings)}
    for name in sorted(set(changes) - own - trainers):
        near = near_matches(name, sorted(own | trainers), 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(own | trainers))}"
        raise InputError(f"no option {name}: {hint}")
    inner = {name: value for name, value in changes.items() if name in trainers}
    outer = {name: value for name, value in changes.items() if name in own}
    trainer = outer.pop("trainer", base.trainer)
    check_kind("trainer", trainer, TrainerSettings, "give TrainerSettings(...)", optional=False)
    trainer = dataclasses.replace(trainer, **inner)
    return dataclasses.replace(base, trainer=trainer, **outer)


def weights_of(preset: str | Preset | None, changes: Mapping[str, float]) -> LossWeights:
    """The preset's weights, or `LossWeights.plain()`, with some of them changed.

    Raises:
        InputError: a change names no loss.

    Examples:
        >>> weights_of(None, {"feature": 3.0}).feature
        3.0
    """
    weights: LossWeights = Settings(preset=preset).filled().weights
    known = [each.name for each in dataclasses.fields(weights)]
    if unknown := sorted(set(changes) - set(known)):
        raise InputError(f"no loss {', '.join(unknown)}: expected some of {', '.join(known)}")
    return dataclasses.replace(weights, **changes)
