"""`shortcutv2v train`: distil a block on some clips and save it."""

from __future__ import annotations

import argparse

from shortcutv2v import video
from shortcutv2v.cli.setup import open_adapter
from shortcutv2v.translate import from_uint8

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Train, then save the block; checkpoints to resume from lie beside it."""
    from shortcutv2v.distill import fit

    clips = video.find_clips(options.clips, min_frames=2)
    with video.open(clips[0], size=options.height) as clip:
        frame = from_uint8(next(iter(clip)))
    adapter = open_adapter(options)
    parameter = next(adapter.teacher.parameters())
    changes = {"max_interval": options.interval, "variant": options.variant, "channels": options.channels}
    model = adapter.wrap(
        frame.to(parameter.device, parameter.dtype), **{k: v for k, v in changes.items() if v is not None}
    )
    distiller = fit(
        model,
        options.clips,
        adapter=adapter,
        minutes=options.minutes,
        max_steps=options.steps,
        validation=options.validation,
        size=options.height,
        crop=options.crop,
        batch_size=options.batch_size,
        lr=options.lr,
        seed=options.seed,
        folder=options.out,
        resume=options.resume,
    )
    model.save(options.out)
    scores = {name: float(value) for name, value in distiller.trainer.callback_metrics.items()}
    print(
        f"{options.out}: {distiller.trainer.global_step} steps; " + ", ".join(f"{k} {v:.4g}" for k, v in scores.items())
    )
