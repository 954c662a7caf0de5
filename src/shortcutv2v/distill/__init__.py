"""Distillation: train the Shortcut blocks of a wrapped teacher against the teacher itself (section 3.3).

    pairs = distill.Pairs([video.Frames("clip.mp4")], max_interval=3, crop=(128, 128))
    trainer = pytorch_lightning.Trainer(max_steps=1000)
    trainer.fit(distill.Distiller(model), DataLoader(pairs, batch_size=8))

or, in one call, `shortcutv2v.fit(model, "clip.mp4", minutes=5)`. The losses as functions are in `distill.losses`, the
networks of the discriminators in `distill.discriminators`. Needs the extra `train`.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.cache import FeatureCache, collate
from shortcutv2v.distill.clips import FrameSource, Mirrored, Part, open_clips
from shortcutv2v.distill.data import Pairs, Sequences, Windows
from shortcutv2v.distill.discriminators import load_authors
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.distill.perceptual import FeaturePerceptual, LPIPSPerceptual, VGGPerceptual
from shortcutv2v.distill.presets import PRESETS, Preset
from shortcutv2v.distill.rollout import Rollout, ShortcutFrame
from shortcutv2v.distill.settings import Settings, TrainerSettings

_WITH_LIGHTNING = {
    **dict.fromkeys(("EMA", "NaNGuard", "PictureLog", "StepSeed"), "callbacks"),
    "Distiller": "module",
    "Plateau": "verdict",
    "fit": "fitting",
}
"""Names whose modules import Lightning, which takes seconds: imported at first use."""

if TYPE_CHECKING:
    from shortcutv2v.distill.callbacks import EMA, NaNGuard, PictureLog, StepSeed
    from shortcutv2v.distill.fitting import fit
    from shortcutv2v.distill.module import Distiller
    from shortcutv2v.distill.verdict import Plateau
else:  # a type checker would take a module with `__getattr__` to have any name

    def __getattr__(name: str) -> Any:
        if name not in _WITH_LIGHTNING:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_WITH_LIGHTNING[name]}"), name)


__all__ = [
    "EMA",
    "PRESETS",
    "Adversary",
    "Distiller",
    "FeatureCache",
    "FeaturePerceptual",
    "FrameSource",
    "LPIPSPerceptual",
    "LossWeights",
    "Mirrored",
    "NaNGuard",
    "Pairs",
    "Part",
    "PictureLog",
    "Plateau",
    "Preset",
    "Rollout",
    "Sequences",
    "Settings",
    "ShortcutFrame",
    "StepSeed",
    "TrainerSettings",
    "VGGPerceptual",
    "Windows",
    "collate",
    "fit",
    "load_authors",
    "open_clips",
]

for _name in ("kornia", "pytorch_lightning"):
    if importlib.util.find_spec(_name) is None:
        raise ImportError(f'distillation needs {_name}: pip install "shortcutv2v[train]"')
