"""Counting, timing and comparing: what a wrapped model costs and what it is worth."""

from shortcutv2v.measure.macs import Macs, macs
from shortcutv2v.measure.quality import FrameScore, Pictures, Scores, compare, psnr, ssim

__all__ = ["FrameScore", "Macs", "Pictures", "Scores", "compare", "macs", "psnr", "ssim"]
