"""Counting, timing and comparing: what a wrapped model costs and what it is worth."""

from shortcutv2v.measure.compare import FrameScore, Pictures, Scores, compare
from shortcutv2v.measure.macs import Macs, macs
from shortcutv2v.measure.quality import psnr, ssim

__all__ = ["FrameScore", "Macs", "Pictures", "Scores", "compare", "macs", "psnr", "ssim"]
