"""Cut any `nn.Module` in three: capture what the teacher does, then run head, middle and tail alone.

cut = parse_cut(teacher, "down1", "up1")        # names checked
cap = Capture(teacher, cut, (frame,), {})       # captured and verified on the example
split = cap.at((frame,), {})                    # the programs for these shapes
carry = split.head(frame)
out = split.tail(carry, split.middle(carry))    # equals teacher(frame) bit for bit
"""

from ..ops.flops import MacCounter
from .capture import Capture
from .cut import Branch, Cut, Layer, parse_cut
from .facts import Facts
from .protect import untouched
from .split import Maps, Split
from .structure import flatten, keep
from .suggest import Suggestion, suggest_cuts

__all__ = [
    "Branch",
    "Capture",
    "Cut",
    "Facts",
    "Layer",
    "MacCounter",
    "Maps",
    "Split",
    "Suggestion",
    "flatten",
    "keep",
    "parse_cut",
    "suggest_cuts",
    "untouched",
]
