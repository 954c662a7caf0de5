"""Sizes, colours and names of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from shortcutv2v.errors import VideoError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["IMAGE_SUFFIXES", "SD", "SDR", "VIDEO_SUFFIXES", "Colour", "Size", "fit"]

Size = tuple[int, int] | int | None
"""A size to read at: (H, W); one int, the height, with the width following the aspect ratio; None, as stored."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp",
    ".ogv", ".gif", ".y4m", ".mxf", ".h264", ".hevc",
})
# fmt: on
_BT601, _BT709, _BT2020 = 5, 1, 9
_HDR = {16: "PQ", 18: "HLG"}
_MOST_PIXELS = 2**31 // 8  # av_image_check_size


def fit(size: Size, stored: tuple[int, int], multiple: int = 1) -> tuple[int, int]:
    """Return the (H, W) that frames of `stored` size have when they are read at `size`.

    Args:
        size: see `Size`.
        stored: (H, W) as stored.
        multiple: with a height as size, round both sides to multiples of this number.

    Raises:
        VideoError: `size` is no positive height or pair, or larger than FFmpeg can scale.

    >>> fit(180, (720, 1280))
    (180, 320)
    >>> fit(256, (720, 1280)), fit(256, (720, 1280), multiple=4)
    ((256, 455), (256, 456))
    >>> fit((64, 64), (720, 1280))
    (64, 64)
    """
    if size is None:
        return stored
    pair: Any = size
    if isinstance(size, int):
        sides = (Fraction(size), Fraction(stored[1] * size, stored[0]))
        pair = tuple(max(1, round(side / multiple)) * multiple for side in sides) if size > 0 else (size, size)
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise VideoError(
            f"size={size!r} is no size; expected a height, as in size=180, or a pair, as in size=(180, 320)"
        )
    if (pair[0] + 128) * (pair[1] + 128) >= _MOST_PIXELS:
        raise VideoError(f"size={size!r}: {pair[0]}x{pair[1]} frames are too large for FFmpeg; expected a smaller size")
    return pair[0], pair[1]


@dataclass(frozen=True)
class Colour:
    """Rules for showing pixel values, by the numbers of ITU-T H.273; they are kept and not converted.

    Attributes:
        primaries: which red, green and blue; 1 is BT.709, 9 is BT.2020.
        transfer: from value to light; 1 is BT.709, 16 is PQ, 18 is HLG.
    """

    primaries: int = 1
    transfer: int = 1

    @staticmethod
    def of(frame: VideoFrame, codec: Any) -> Colour:
        """Return the colour that a frame or its codec states; if it is not HDR, that of BT.709."""
        primaries, transfer = (
            int(getattr(frame, name, getattr(codec, name, 0))) for name in ("color_primaries", "color_trc")
        )
        return Colour(primaries, transfer) if transfer in _HDR else Colour()

    @property
    def hdr(self) -> str:
        """The name of the HDR transfer; empty if it is none."""
        return _HDR.get(self.transfer, "")

    @property
    def matrix(self) -> int:
        """The YUV matrix that goes with it."""
        return self.primaries if self.primaries in {_BT2020, _BT601} else _BT709


SDR, SD = Colour(), Colour(_BT601, _BT601)
