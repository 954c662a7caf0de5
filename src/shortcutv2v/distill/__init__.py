"""Distillation: train the Shortcut blocks of a wrapped teacher against the teacher itself (section 3.3).

    pairs = distill.Pairs([video.Frames("clip.mp4")], max_interval=3, crop=(128, 128))
    trainer = pytorch_lightning.Trainer(max_steps=1000)
    trainer.fit(distill.Distiller(model), DataLoader(pairs, batch_size=8))

or, in one call, `distill.fit(model, "clip.mp4", minutes=5)`. Needs the extra `train`.
"""

try:
    import kornia  # noqa: F401
    import pytorch_lightning  # noqa: F401
except ImportError as error:
    raise ImportError(f'distillation needs {error.name}: pip install "shortcutv2v[train]"') from None

from shortcutv2v.distill.data import FrameSource, Pairs, Part, Windows
from shortcutv2v.distill.losses import LossWeights, alignment_loss, feature_loss, output_loss
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.rollout import Rollout, Step, Taught
from shortcutv2v.distill.quick import fit, open_clips

__all__ = [
    "Distiller",
    "FrameSource",
    "LossWeights",
    "Pairs",
    "Part",
    "Rollout",
    "Step",
    "Taught",
    "Windows",
    "alignment_loss",
    "feature_loss",
    "fit",
    "open_clips",
    "output_loss",
]
