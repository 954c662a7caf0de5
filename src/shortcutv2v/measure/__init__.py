"""What things cost and what they are worth: multiply-adds, parameters, time, memory, quality against the teacher.

`profile(model, inputs)` puts the costs of a wrapped teacher in one table; `compare` runs a clip through teacher and
model. Multiply-adds are the true ones; `cost(..., convention="paper")` counts as the paper's tables do, for comparison
with them only.
"""

from shortcutv2v.measure.candidates import Candidate
from shortcutv2v.measure.compare import FrameScore, Pictures, Scores, compare
from shortcutv2v.measure.cost import Cost, cost
from shortcutv2v.measure.latency import Latency, latency, peak_memory
from shortcutv2v.measure.macs import Macs, macs
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
