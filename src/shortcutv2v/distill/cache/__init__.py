"""The teacher's features, computed once and kept on disk: it is frozen, so they never change.

    cache = FeatureCache("features/", model)
    pairs = Pairs(clips, max_interval=3, crop=(128, 128), cache=cache)
    trainer.fit(Distiller(model), DataLoader(pairs, batch_size=8, collate_fn=collate))

A step on frames runs the teacher's head and middle on every frame of every sample; a step on cached features runs only
the tails. Filling the cache costs head and middle once per frame, so it pays if a run sees more pixels than the clips
have: for 100 frames of 320x180, at 8 pairs of 96x96 a step, after 39 steps.
"""

from shortcutv2v.distill.cache.feature_cache import FeatureCache
from shortcutv2v.distill.cache.features import Features, collate

__all__ = ["FeatureCache", "Features", "collate"]
