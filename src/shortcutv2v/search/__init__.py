"""Search for the fastest way to a quality: cut, block and width, on the user's own film.

`auto(network, "film.mp4", "faster.mp4", quality=40)` searches and translates; `tune(network, clips)` searches alone and
shows what every choice is worth. Needs the extra `train`.
"""

from shortcutv2v.search.decide import Goal, Worth
from shortcutv2v.search.run import auto, tune
from shortcutv2v.search.table import Row

__all__ = ["Goal", "Row", "Worth", "auto", "tune"]
