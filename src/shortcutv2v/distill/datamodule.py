"""From clips to batches: the LightningDataModule of `fit` and of `shortcutv2v train`."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import bar, say
from shortcutv2v.distill.cache import FeatureCache
from shortcutv2v.distill.clips import FrameSource, Source, open_clips
from shortcutv2v.distill.data import Pairs, Sequences, Windows
from shortcutv2v.distill.pace import ValidationPace, choose_plan, frame_cost, validation_pace
from shortcutv2v.distill.plan import BATCHES, Batches, Plan
from shortcutv2v.distill.progress import RARELY
from shortcutv2v.distill.settings import Settings, settings_of
from shortcutv2v.distill.verdict import Deadline
from shortcutv2v.errors import InputError
from shortcutv2v.model import ShortcutV2V

__all__ = ["ClipData"]


class ClipData(pl.LightningDataModule):
    """Samples to train on and windows to validate on; a resumed run goes on where it had stopped.

    The samples of a step depend on `seed` and the step's number alone: not on interruptions, on `workers` or, at equal
    global batch, on the number of processes.

    Args:
        source: clips to train on, as `open_clips` takes them.
        validation: clips to validate on, window by window in a fixed random order; None for no validation.
        settings: size, crop, batch, samples and the rest, see `Settings`; "auto" for `cache` is none here.
        changes: options of `Settings` by name, such as `crop=96` or `cache="features/"`.

    Attributes:
        minutes: length of the run. If it is set, the work of a step is chosen by how long it takes.
        fixed: whether crop and batch were given, so that they are kept.
        plan: the work of every step; None for one batch size and crop.
        validation: how often to validate and on how many windows; None for the trainer's options and all.

    Raises:
        VideoError: no clip can be read.
        InputError: an option is out of range; later, in `setup()`, clips that cannot be used, or `frames` for pairs.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        validation: Source | Sequence[Source] | None = None,
        settings: Settings | None = None,
        **changes: Any,
    ) -> None:
        super().__init__()
        self.settings = settings_of(settings, changes).filled()
        self.clips = open_clips(source, self.settings.size)
        self.held_out = None if validation is None else open_clips(validation, self.settings.size)
        self.batch_size = self.settings.batch_size
        self.cache = None if self.settings.cache == "auto" else self.settings.cache
        self.minutes: float | None = None
        self.fixed, self.cached = False, False
        self.plan: Plan | None = None
        self.validation: ValidationPace | None = None
        self.windows: Dataset[Tensor] | None = None

    def window(self, model: ShortcutV2V, adapter: Adapter) -> int:
        """Return the length of a validation window: an interval, after the frames that the adapter opens with."""
        return max(2, model.refresh.interval) + _opening_frames(adapter)

    def setup(self, stage: str) -> None:
        """Make the data sets, for the interval and the adapter of the model that is trained."""
        module: Any = cast("pl.Trainer", self.trainer).lightning_module
        if self.held_out is not None:
            windows = Windows(self.held_out, self.window(module.model, module.adapter))
            # In an order that is always the same, so that the first few windows stand for all clips.
            order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
            self.windows = Subset(windows, order.tolist())
        if stage == "fit":
            self.pairs = self._training_set(module)
            if self.minutes is not None:
                self._fit_to_pace(module, self.minutes)
            if self.validation is not None:
                self._limit_validation(*self.validation)

    def _fit_to_pace(self, module: Any, minutes: float) -> None:
        """Choose the work of a step, and how often and on how much to validate, by how long they take here."""
        module.to(module.trainer.strategy.root_device)
        usual = Plan(self.batch_size, self.pairs.crop)
        self.plan, seconds = choose_plan(module, self.pairs, usual, self.fixed)
        if self.plan != usual and self.settings.progress:
            say(f"a step of {usual} takes long here, so steps are of {self.plan}: about {seconds:.1f} s each")
        if self.held_out is not None:
            length = self.window(module.model, module.adapter)
            cost = frame_cost(module.model, module.adapter, self.held_out[0])
            self.validation = validation_pace(cost, length, minutes, seconds)

    def _limit_validation(self, every: int, windows: int, seconds: float) -> None:
        trainer: Any = self.trainer
        for each in trainer.callbacks:
            if isinstance(each, Deadline):
                each.reserve = seconds
        self.windows = Subset(self.windows, range(min(windows, len(self.windows))))  # type: ignore[arg-type]
        if self.settings.trainer.val_check_interval is None:
            trainer.val_check_interval = every  # Lightning reads it when training begins

    def _training_set(self, module: Any) -> Any:
        adapter, interval = module.adapter, module.model.refresh.interval
        pairs = self.settings.kind == "pairs" or (self.settings.kind == "auto" and not adapter.recurrent)
        if pairs and self.settings.frames is not None:
            raise InputError('frames is the length of sequences, but pairs are drawn: give kind="sequences", too')
        # A block meets the whole interval only where it is shown at reference frames, too.
        distance = interval if module.model.show_shortcut else max(1, interval - 1)
        opening = _opening_frames(adapter) if self.cache is None else 0  # cached features begin after them
        length = distance if pairs else (self.settings.frames or max(2, interval) + opening)
        crop = _crop(self.clips, self.settings.crop)
        shared: dict[str, Any] = {"crop": crop, "length": self.batch_size * BATCHES, "seed": self.settings.seed}
        samples = Pairs if pairs else Sequences
        if self.cache is None:
            return samples(self.clips, length, **shared)
        module.to(module.trainer.strategy.root_device)  # Lightning does so a moment later
        frames = sum(len(clip) for clip in self.clips)
        shown = bar(total=frames, desc="caching features", disable=not self.settings.progress, **RARELY)
        with _first_alone(module.trainer), shown:
            cache = FeatureCache(self.cache, module.model, adapter, watch=shown.update)
            return samples(self.clips, length, **shared, cache=cache)

    @property
    def step_pixels(self) -> int:
        """Pixels of all frames of a step."""
        height, width = _crop(self.clips, self.settings.crop) or self.clips[0][0].shape[-2:]
        return int(2 * self.batch_size * height * width)

    def state_dict(self) -> dict[str, Any]:
        """Return the choices that a resumed run repeats: measured again, they could be others."""
        plan = None if self.plan is None else asdict(self.plan)
        return {
            "cached": self.cache is not None,
            "plan": plan,
            "validation": self.validation and tuple(self.validation),
        }

    def repeat(self, saved: dict[str, Any]) -> None:
        """Take up the choices of the run that is resumed; a crop or batch that is given now counts more."""
        self.cached, self.validation = bool(saved.get("cached")), None
        if saved.get("validation"):
            self.validation = ValidationPace(*saved["validation"])
        if saved.get("plan") and not self.fixed:
            self.plan = Plan(**saved["plan"])

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches (B, T, C, h, w) in [0, 1] or cached features, from the first that the run has not seen."""
        trainer, seen, rank, processes = self.trainer, 0, 0, 1
        if trainer is not None:
            rank, processes = trainer.global_rank, trainer.world_size
            seen = trainer.global_step * trainer.accumulate_grad_batches
        plan = self.plan or Plan(self.batch_size, self.pairs.crop)
        for step in range(2):  # a resumed run repeats crops that were not measured now
            self.pairs.add_crop(plan.work(step).crop)
        batches = Batches(self.pairs, plan, rank, processes)
        return DataLoader(
            batches,
            batch_size=None,
            sampler=_From(batches, seen),
            num_workers=self.settings.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.settings.workers > 0,
        )

    def val_dataloader(self) -> Any:
        """Windows (1, T, C, H, W), or nothing."""
        return DataLoader(self.windows, batch_size=1) if self.windows is not None else []


class _From(DistributedSampler[Any]):
    """Batch numbers from `start` on.

    A `DistributedSampler`, so that Lightning leaves it in place: `Batches` deals samples out to the processes.
    """

    def __init__(self, batches: Batches, start: int) -> None:
        super().__init__(batches, num_replicas=1, rank=0, shuffle=False)
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.start + len(self)))


@contextlib.contextmanager
def _first_alone(trainer: pl.Trainer) -> Iterator[None]:
    """The first process goes ahead, the others follow."""
    if not trainer.is_global_zero:
        trainer.strategy.barrier()
    yield
    if trainer.is_global_zero:
        trainer.strategy.barrier()


def _opening_frames(adapter: Adapter) -> int:
    """Return how many frames a video opens with before the teacher runs: two, for teachers that read two outputs."""
    return 0 if type(adapter).opening is Adapter.opening else 2


def _crop(clips: Sequence[FrameSource], side: int | None) -> tuple[int, int] | None:
    """The square crop, cut down to what the smallest clip allows."""
    if side is None:
        return None
    sizes = [(int(shape[-2]), int(shape[-1])) for shape in (clip[0].shape for clip in clips)]
    height, width = (min(side, *(size[i] for size in sizes)) for i in (0, 1))
    if (height, width) != (side, side) and any(min(size) >= side for size in sizes):
        warnings.warn(
            f"crops are {height}x{width} and not {side}x{side}, since a clip is no larger: leave it out, or give a "
            "smaller crop",
            stacklevel=2,
        )
    return height, width
