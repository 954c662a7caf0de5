"""The Shortcut block and its parts (section 3.2 of the paper)."""

from shortcutv2v.blocks.ablations import (
    SingleStageBlock,
    WithoutBlendingBlock,
    WithoutCurrentBlock,
    WithoutReferenceBlock,
)
from shortcutv2v.blocks.alignment import GlobalAlignment, OffsetGenerator
from shortcutv2v.blocks.base import DEFAULT_VARIANT, Prediction, ShortcutBlock, default_width
from shortcutv2v.blocks.blend import AdaBD
from shortcutv2v.blocks.flow import FlowBlock, MotionGenerator
from shortcutv2v.blocks.hetconv import HetConv2d
from shortcutv2v.blocks.paper import PaperBlock

__all__ = [
    "DEFAULT_VARIANT",
    "AdaBD",
    "FlowBlock",
    "GlobalAlignment",
    "HetConv2d",
    "MotionGenerator",
    "OffsetGenerator",
    "PaperBlock",
    "Prediction",
    "ShortcutBlock",
    "SingleStageBlock",
    "WithoutBlendingBlock",
    "WithoutCurrentBlock",
    "WithoutReferenceBlock",
    "default_width",
]
