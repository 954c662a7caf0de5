"""Measure cost and quality: multiply-adds, parameters, time, memory, and distance to the teacher's pictures.

`profile(model, inputs)` puts the costs of a wrapped teacher into one table. `compare` runs a clip through teacher and
model. Multiply-adds are the true ones; `cost(..., convention="paper")` counts as the paper's tables do, for comparison
with them only.
"""

from shortcutv2v.measure.candidates import Candidate
from shortcutv2v.measure.compare import FrameScore, Pictures, Scores, compare
from shortcutv2v.measure.cost import Cost, Macs, cost, macs
from shortcutv2v.measure.latency import Latency, latency, peak_memory
from shortcutv2v.measure.profiling import Profile, Row, profile
from shortcutv2v.measure.quality import flicker, psnr, ssim

__all__ = [
    "Candidate",
    "Cost",
    "FrameScore",
    "Latency",
    "Macs",
    "Pictures",
    "Profile",
    "Row",
    "Scores",
    "compare",
    "cost",
    "flicker",
    "latency",
    "macs",
    "peak_memory",
    "profile",
    "psnr",
    "ssim",
]
