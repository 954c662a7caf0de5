"""`shortcutv2v train`: distil a block on some clips and save it."""

from __future__ import annotations

import argparse

from shortcutv2v.cli.setup import open_adapter
from shortcutv2v.model import placement
from shortcutv2v.translate import from_uint8

__all__ = ["run"]


def run(options: argparse.Namespace) -> None:
    """Train, then save the block; checkpoints to resume from lie beside it."""
    from shortcutv2v.distill import fit, open_clips

    clips = open_clips(options.clips, options.height)  # a bad clip is told before the network is loaded
    adapter = open_adapter(options)
    frame = from_uint8(clips[0][0]).to(*placement(adapter.teacher))
    changes = {"max_interval": options.interval, "variant": options.variant, "channels": options.channels}
    model = adapter.wrap(frame, **{k: v for k, v in changes.items() if v is not None})
    distiller = fit(
        model,
        clips,
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
