"""Distillation: train the Shortcut blocks of a wrapped teacher against the teacher itself (section 3.3).

    pairs = distill.Pairs([video.Frames("clip.mp4")], max_interval=3, crop=(128, 128))
    trainer = pytorch_lightning.Trainer(max_steps=1000)
    trainer.fit(distill.Distiller(model), DataLoader(pairs, batch_size=8))

or, in one call, `shortcutv2v.fit(model, "clip.mp4", minutes=5)`. Needs the extra `train`.
"""

try:
    import kornia  # noqa: F401
    import pytorch_lightning  # noqa: F401
except ImportError as error:
    raise ImportError(f'distillation needs {error.name}: pip install "shortcutv2v[train]"') from None

from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.cache import FeatureCache, FeaturePairs, FeatureSequences, collate
from shortcutv2v.distill.callbacks import EMA, NaNGuard, PictureLog, Plateau, StepSeed
from shortcutv2v.distill.data import FrameSource, Mirrored, Pairs, Part, Sequences, Windows
from shortcutv2v.distill.discriminators import MultiScale, PatchDiscriminator, TemporalDiscriminator, load_authors
from shortcutv2v.distill.losses import (
    LossWeights,
    alignment_loss,
    feature_loss,
    gan_discriminator_loss,
    gan_generator_loss,
    output_loss,
    perceptual_loss,
)
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.perceptual import FeaturePerceptual, LPIPSPerceptual, VGGPerceptual
from shortcutv2v.distill.presets import PRESETS, Preset, find_preset
from shortcutv2v.distill.quick import fit
from shortcutv2v.distill.rollout import Rollout, Step, Taught
from shortcutv2v.distill.sources import open_clips

__all__ = [
    "EMA",
    "PRESETS",
    "Adversary",
    "Distiller",
    "FeatureCache",
    "FeaturePairs",
    "FeaturePerceptual",
    "FeatureSequences",
    "FrameSource",
    "LPIPSPerceptual",
    "LossWeights",
    "Mirrored",
    "MultiScale",
    "NaNGuard",
    "Pairs",
    "Part",
    "PatchDiscriminator",
    "PictureLog",
    "Plateau",
    "Preset",
    "Rollout",
    "Sequences",
    "Step",
    "StepSeed",
    "Taught",
    "TemporalDiscriminator",
    "VGGPerceptual",
    "Windows",
    "alignment_loss",
    "collate",
    "feature_loss",
    "find_preset",
    "fit",
    "gan_discriminator_loss",
    "gan_generator_loss",
    "load_authors",
    "open_clips",
    "output_loss",
    "perceptual_loss",
]
