"""`shortcutv2v train`: distil a block on some clips and save it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shortcutv2v.cli.setup import frame_size, open_adapter
from shortcutv2v.model import placement
from shortcutv2v.translate import from_uint8

if TYPE_CHECKING:
    from shortcutv2v.distill import Distiller
    from shortcutv2v.distill.feed import ClipData

__all__ = ["run"]

_OF_DATA = ("crop", "batch_size", "kind", "frames", "cache", "seed")
_OF_DISTILLER = (
    *("lr", "lr_discriminator", "betas", "decay", "schedule", "perceptual", "adversary"),
    *("feedback", "truncate"),
)


def run(argv: Sequence[str], add_adapter: Callable[[Any], None]) -> None:
    """Train, then save the block; checkpoints to resume from, logs and the options lie beside it.

    Args:
        argv: the arguments behind `train`.
        add_adapter: adds the options that all commands share to a parser.
    """
    from shortcutv2v.distill.cache.worth import drop_features
    from shortcutv2v.distill.command import TrainCLI
    from shortcutv2v.distill.running import run as train

    cli = TrainCLI(argv, add_adapter, _build)
    out = cli.config.out
    if cli.trainer.is_global_zero:
        cli.save_config(out / "train.yaml")
    train(cli.trainer, cli.model, cli.datamodule, cli.config.resume)
    if cli.trainer.is_global_zero:
        if cli.config.cache == "auto":
            drop_features(cli.datamodule.cache)
        cli.model.model.eval().save(out)
        scores = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
        values = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        print(f"{out}: {cli.trainer.global_step} steps" + (f"; {values}" if values else ""))


def _build(options: Any) -> tuple[Distiller, ClipData]:
    """Clips, adapter, model, in this order: a bad clip is told before the network is loaded."""
    from shortcutv2v.distill.checks import check_run
    from shortcutv2v.distill.presets import find_preset
    from shortcutv2v.distill.quick import data_of, distiller_of, weights_of
    from shortcutv2v.distill.running import features_folder

    watched = {name: options[name] for name in ("minutes", "steps", "seed", "patience", "save_every", "ema")}
    check_run(precision=options.trainer.precision, **watched)
    _check_trainer(options.trainer)
    preset = None if options.preset is None else find_preset(options.preset)
    given = {name: options[name] for name in _OF_DATA} | {
        "size": frame_size(options.size),
        "num_workers": options.workers,
    }
    data = data_of(options.clips, options.validation, preset, **given)
    adapter = open_adapter(options)
    frame = from_uint8(data.clips[0][0]).to(*placement(adapter.teacher))
    usual = preset.max_interval if preset is not None else None
    interval = usual if options.interval is None else options.interval
    changes = {"max_interval": interval, "variant": options.variant, "channels": options.channels}
    model = adapter.wrap(frame, **{k: v for k, v in changes.items() if v is not None})
    settings = {name: options[name] for name in _OF_DISTILLER}
    module = distiller_of(model, adapter, preset, weights=weights_of(preset, options.weights or {}), **settings)
    if options.cache == "auto":
        # Several processes would each come to a decision of their own.
        alone = options.trainer.devices in (1, "1")
        where = (options.minutes, options.out, options.resume)
        data.cache = features_folder(module, data.clips, *where) if alone else None
    return module, data


def _check_trainer(options: Any) -> None:
    """Numbers that Lightning takes without a look and divides by."""
    from shortcutv2v.distill.checks import check_number

    check_number("trainer.accumulate_grad_batches", options.accumulate_grad_batches, 1, whole=True)
    for name in ("val_check_interval", "gradient_clip_val"):
        if isinstance(options[name], int | float):
            check_number(f"trainer.{name}", options[name], 0, inside=True)
