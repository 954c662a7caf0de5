"""Measure cost and quality: multiply-adds, parameters, time, memory, and distance to the teacher's pictures.

`profile(model, inputs)` puts the costs of a wrapped teacher into one table. `measure` runs a clip through teacher and
model, and `compare` does so frame by frame. `inspect` shows where a teacher can be cut. Multiply-adds are the true
ones; `cost(..., convention="paper")` counts as the paper's tables do, for comparison with them only.
"""

from shortcutv2v.measure.candidates import Candidate
from shortcutv2v.measure.compare import Pictures, compare, measure
from shortcutv2v.measure.cost import Cost, Macs, cost, macs
from shortcutv2v.measure.inspect import Inspection, inspect
from shortcutv2v.measure.interpolation import Interpolator
from shortcutv2v.measure.latency import Latency, latency, peak_memory
from shortcutv2v.measure.metrics import Metric, Panel, Setting
from shortcutv2v.measure.profiling import Profile, Row, profile
from shortcutv2v.measure.quality import flicker, psnr, ssim
from shortcutv2v.measure.redundancy import Redundancy, redundancy
from shortcutv2v.measure.scores import METHODS, FrameScore, Scores

__all__ = [
    "METHODS",
    "Candidate",
    "Cost",
    "FrameScore",
    "Inspection",
    "Interpolator",
    "Latency",
    "Macs",
    "Metric",
    "Panel",
    "Pictures",
    "Profile",
    "Redundancy",
    "Row",
    "Scores",
    "Setting",
    "compare",
    "cost",
    "flicker",
    "inspect",
    "latency",
    "macs",
    "measure",
    "peak_memory",
    "profile",
    "psnr",
    "redundancy",
    "ssim",
]
