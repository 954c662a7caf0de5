"""The metrics of one measurement: which can be computed here, which are left out and why, and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from shortcutv2v.errors import InputError, near_matches
from shortcutv2v.measure.metrics.base import Metric, Setting, Unavailable

__all__ = ["Panel", "known"]

TEACHER = "teacher"


def known(names: Sequence[str] | None = None) -> list[type[Metric]]:
    """Return the metrics of these names in order, or all.

    Raises:
        InputError: there is no such metric.

    Examples:
        >>> [metric.heading() for metric in known(["psnr", "flicker"])]
        ['PSNR, dB ↑', 'flicker, of 255 ↓']
    """
    for name in names or ():
        if name not in Metric.known:
            hint = ", ".join(near_matches(name, Metric.known) or sorted(Metric.known))
            raise InputError(f"there is no metric {name!r}: expected one of {hint}")
    return [Metric.known[name] for name in dict.fromkeys(names or Metric.known)]


class Panel:
    """Some metrics that look at several versions of one video.

    Args:
        names: of the metrics; None for all.
        setting: the things that they may need.

    Attributes:
        left_out: name -> what is missing and how to get it.
        notes: name -> settings to print beside the numbers.

    Raises:
        InputError: an unknown name, here or in the setting's files.

    Examples:
        >>> import torch
        >>> panel = Panel(["psnr"])
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> round(panel.frame({"ours": grey}, grey + 0.1, grey)["psnr"]["ours"], 2)
        20.0
    """

    def __init__(self, names: Sequence[str] | None = None, setting: Setting | None = None) -> None:
        self.setting = setting or Setting()
        self.metrics = {metric.name: metric for metric in known(names)}
        known(list(self.setting.files))
        self.left_out: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self._running: dict[tuple[str, str], Metric] = {}

    def frame(
        self, made: Mapping[str, Tensor], teacher: Tensor, source: Tensor, shortcut: bool = True
    ) -> dict[str, dict[str, float]]:
        """Take the next frame; return the values that count, by metric and method.

        Args:
            made: method -> picture (1, 3, H', W') in [0, 1].
            teacher: the teacher's picture, likewise.
            source: the input frame, (1, 3, H, W).
            shortcut: False if the frame is the teacher's own, so that only metrics over every frame look at it.
        """
        found: dict[str, dict[str, float]] = {}
        for name, metric in self.metrics.items():
            if name in self.left_out or not (shortcut or metric.every):
                continue
            methods = {**made, **({TEACHER: teacher} if metric.absolute else {})}
            try:
                values = {
                    method: self._metric(metric, method).frame(picture, teacher, source)
                    for method, picture in methods.items()
                }
            except Unavailable as missing:
                self.left_out[name] = str(missing)
                continue
            if kept := {method: value for method, value in values.items() if value is not None}:
                found[name] = kept
        return found

    def finish(self) -> dict[str, dict[str, float]]:
        """Return the values of the whole video, by metric and method; an object measures one video."""
        found: dict[str, dict[str, float]] = {}
        for (name, method), metric in self._running.items():
            if name in self.left_out:
                continue
            try:
                value = metric.finish()
            except Unavailable as missing:
                self.left_out[name] = str(missing)
                continue
            if value is not None:
                found.setdefault(name, {})[method] = value
            if note := metric.note():
                self.notes[name] = note
        return found

    def _metric(self, metric: type[Metric], method: str) -> Metric:
        if (metric.name, method) not in self._running:
            self._running[metric.name, method] = metric(self.setting)
        return self._running[metric.name, method]
