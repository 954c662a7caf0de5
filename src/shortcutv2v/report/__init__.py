"""One self-contained page per run: players in step, quality per frame, worst frames, metrics, times, the cut.

`write_report(model, adapter, frames, path)` measures a clip and writes the page. Any browser opens it, without a
network.
"""

from shortcutv2v.report.build import about, write_report
from shortcutv2v.report.collect import FRAMES, Reel
from shortcutv2v.report.sections import Report

__all__ = ["FRAMES", "Reel", "Report", "about", "write_report"]
