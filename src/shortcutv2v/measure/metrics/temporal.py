"""Metrics over time: flicker, and the warping error along the teacher's motion."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from shortcutv2v.measure import quality
from shortcutv2v.measure.metrics.base import Metric, Setting, Unavailable, needed

__all__ = ["Flicker", "WarpingError", "flow", "warped"]

_SHARP = 50.0
"""Weight of a pixel whose colour the flow does not explain: exp(-50 |difference|^2), as Lai et al. take it."""


class Flicker(Metric):
    """Mean absolute difference between the changes from frame to frame of both videos, in grey levels of 255."""

    name, title, unit, higher, every, digits = "flicker", "flicker", "of 255", False, True, 3

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._before: tuple[Tensor, Tensor] | None = None

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float | None:
        """See the base class; the first frame has no value."""
        before, self._before = self._before, (made, teacher)
        if before is None or before[0].shape != made.shape:
            return None
        return 255 * quality.flicker(torch.cat((before[0], made)), torch.cat((before[1], teacher)))


class WarpingError(Metric):
    """Mean square of what the motion from one frame to the next does not explain, times 1000 (Lai et al. 2018).

    The motion is the optical flow of the teacher's pictures by DIS (OpenCV, preset medium; Kroeger et al. 2016).
    Pixels that it does not explain in the teacher's own video, such as uncovered background, weigh little.
    """

    name, title, unit, higher, every, absolute, digits = "warping", "warping error", "1e-3", False, True, True, 3

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._before: tuple[Tensor, Tensor] | None = None

    def frame(self, made: Tensor, teacher: Tensor, source: Tensor) -> float | None:
        """See the base class; the first frame has no value."""
        made, teacher = made.float().cpu(), teacher.float().cpu()
        before, self._before = self._before, (made, teacher)
        if before is None or before[0].shape != made.shape:
            return None
        motion = flow(teacher, before[1])
        weight = torch.exp(-_SHARP * (teacher - warped(before[1], motion)).square().sum(1))
        error = (made - warped(before[0], motion)).square().sum(1)
        return float(1e3 * (weight * error).sum() / weight.sum().clamp_min(1e-9))


def flow(start: Tensor, end: Tensor) -> Tensor:
    """Return the optical flow between two pictures (1, 3, H, W) in [0, 1]: (1, 2, H, W), (dx, dy) in pixels.

    `start(p)` looks like `end(p + flow(p))`.

    Raises:
        Unavailable: OpenCV is missing, or the pictures are smaller than 16x16.
    """
    cv2 = needed("cv2", "OpenCV")
    if min(start.shape[-2:]) < 16:
        raise Unavailable("optical flow needs pictures of 16x16 or more")
    estimator: Any = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [(picture[0].mean(0) * 255).round().byte().numpy() for picture in (start, end)]
    found: Tensor = torch.from_numpy(estimator.calc(*grey, None)).permute(2, 0, 1)[None]
    return found


def warped(picture: Tensor, motion: Tensor) -> Tensor:
    """Return the picture (1, C, H, W) sampled at `p + motion(p)`, bilinear, its border repeated.

    Examples:
        >>> picture = torch.arange(4.0).view(1, 1, 1, 4)
        >>> warped(picture, torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4))[0, 0, 0]
        tensor([1., 2., 3., 3.])
    """
    height, width = picture.shape[-2:]
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    places = torch.stack(((x + motion[0, 0]) / max(width - 1, 1), (y + motion[0, 1]) / max(height - 1, 1)), -1)[None]
    return F.grid_sample(picture, 2 * places - 1, padding_mode="border", align_corners=True)
