"""`shortcutv2v train`: distil a block on some clips and save it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from shortcutv2v.bar import say
from shortcutv2v.cli.options import Reader, add_fields, check_config, parse
from shortcutv2v.cli.setup import frame_size, open_adapter
from shortcutv2v.distill import Adversary, FeaturePerceptual, LPIPSPerceptual, Settings, VGGPerceptual, open_clips
from shortcutv2v.distill.checks import check_end, checked_folder, only_run_in
from shortcutv2v.distill.settings import settings_of, weights_of
from shortcutv2v.errors import ShortcutError, check_number
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.translate import from_uint8

__all__ = ["run"]

_ABOUT = """Distil a block on some clips. Options can be given in a YAML file, too (--config): the same names, without
dashes in front and with _ between words. --print_config shows them all."""
_SPECIAL: dict[str, Any] = {
    "size": None,  # the commands share it
    "weights": dict[str, float] | None,
    "perceptual": VGGPerceptual | LPIPSPerceptual | FeaturePerceptual | None,
    "adversary": Adversary | None,
    "accelerator": None,  # --device
}
_WIDEST = 4096


def run(argv: Sequence[str], add_adapter: Callable[[Any], None]) -> None:
    """Train, then save the block; checkpoints to resume from, logs and the options lie beside it.

    Args:
        argv: the arguments after `train`.
        add_adapter: adds the options that all commands share to a parser.
    """
    parser = _parser(add_adapter)
    check_config(argv, ("clips", "validation"))
    given, options = parse(parser, argv)
    check_end(options.minutes, None if options.steps == -1 else options.steps)
    if options.channels is not None:
        check_number("channels, the width of the block,", options.channels, 1, _WIDEST, whole=True)
    settings = _settings(options)
    out = Path(options.out)
    fresh = not out.exists()
    try:
        with only_run_in(checked_folder(options.out)):
            _train(parser, given, options, settings)
    except ShortcutError:
        if fresh and {path.name for path in out.glob("*")} <= {"train.yaml"}:
            shutil.rmtree(out, ignore_errors=True)  # refused before the first step: nothing of it is worth keeping
        raise


def _train(parser: ArgumentParser, given: Any, options: Any, settings: Settings) -> None:
    """Load, train and save."""
    clips = open_clips(options.clips, settings.size)  # a bad clip fails before the network is loaded
    held_out: Any = {("auto",): "auto", ("null",): None}.get(tuple(options.validation or ("null",)), options.validation)
    held_out = open_clips(held_out, settings.size) if isinstance(held_out, list) else held_out
    adapter, model = _model(options, settings, clips[0][0])
    from shortcutv2v.distill import fit  # Lightning takes seconds to import: all that can be refused was

    out = Path(options.out)
    parser.save(given, out / "train.yaml", overwrite=True, multifile=False)  # for --config
    distiller = fit(
        model,
        clips,
        minutes=options.minutes,
        steps=options.steps,
        adapter=adapter,
        validation=held_out,
        folder=out,
        resume=options.resume,
        quality=options.quality,
        settings=settings,
    )
    trainer = distiller.trainer
    if trainer.is_global_zero:
        model.save(out)
        loss = trainer.callback_metrics.get("train/loss")
        reached = distiller.verdict or ("" if loss is None else f"loss {float(loss):.4g}")
        say(f"{out}: {trainer.global_step} steps" + (f"; {reached}" if reached else ""))


def _parser(add_adapter: Callable[[Any], None]) -> ArgumentParser:
    parser = ArgumentParser(prog="shortcutv2v train", description=_ABOUT, exit_on_error=False, default_env=False)
    parser.add_argument("--config", action="config", help="a YAML file of options")
    add_adapter(parser)

    def add(name: str, hint: Any, default: Any, about: str) -> None:
        parser.add_argument(f"--{name}", type=Reader(name, hint), default=default, help=about)

    parser.add_argument("clips", nargs="+", type=str, help="videos, folders of videos or folders of frames")
    parser.add_argument("--out", type=str, required=True, help="folder for the trained block, checkpoints and logs")
    about = "clips to validate on; auto: hold out the ends of long clips; null: none"
    parser.add_argument("--validation", nargs="+", type=str, default=["auto"], help=about)
    add("minutes", float | None, 5.0, "training time; null for no limit")
    add("steps", int | None, None, "stop after so many steps; null goes by time alone")
    add("resume", str | None, None, "a last.ckpt to go on from")
    add("interval", int | None, None, "frames from one refresh to the next")
    add("quality", str | None, None, "train for translate --quality, and calibrate; PSNR in dB, such as 40")
    add("variant", str | None, None, "the block; null: flow")
    add("channels", int | None, None, "width h of the block; null: half of f's, or of a's where f is narrow")
    add_fields(parser, Settings, _SPECIAL)
    return parser


def _settings(options: Any) -> Settings:
    names = [each.name for each in dataclasses.fields(Settings)]
    given = {name: getattr(options, name) for name in names if name not in ("size", "trainer", "weights")}
    kind, _, number = options.device.partition(":")
    devices = {"devices": [int(number)]} if number.isdecimal() and kind != "cpu" else {}
    weights = None if options.weights is None else weights_of(options.preset, options.weights)
    trainer = {**vars(options.trainer), "accelerator": kind, **devices}
    found = settings_of(None, {**given, "size": frame_size(options.size), "weights": weights, **trainer})
    found.filled()  # refuses options that would not be used
    return found


def _model(options: Any, settings: Settings, frame: Any) -> tuple[Any, ShortcutV2V]:
    """The adapter, and its teacher wrapped with the options' interval, variant and width."""
    adapter = open_adapter(options)
    preset = settings.filled().preset
    interval = options.interval if options.interval is not None or preset is None else preset.max_interval
    changes = {"max_interval": interval, "variant": options.variant, "channels": options.channels}
    example = from_uint8(frame, adapter.teacher)
    return adapter, adapter.wrap(example, **{name: value for name, value in changes.items() if value is not None})
