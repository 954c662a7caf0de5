"""Distances to the teacher's video, one file per family. A metric is a class; defining it registers it.

To add one, write a subclass of `Metric` in a file of this folder, or anywhere that is imported before measuring:
nothing else changes. Tables, JSON, CSV and the report take name, unit and direction from the class.
"""

import importlib
import pkgutil

from shortcutv2v.measure.metrics.base import Metric, Setting, Unavailable, Windowed
from shortcutv2v.measure.metrics.panel import Panel, known

__all__ = ["Metric", "Panel", "Setting", "Unavailable", "Windowed", "known"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
