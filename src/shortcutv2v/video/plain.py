"""Writing without compression: yuv4mpeg and raw RGB, into files and pipes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from torch import Tensor

from shortcutv2v.video._part import FilePart, PipePart
from shortcutv2v.video._shape import SD, SDR
from shortcutv2v.video.picture import new_scaler, to_frame
from shortcutv2v.video.write import Writer

__all__ = ["PlainWriter"]


class PlainWriter(Writer):
    """Writes frames without compression, at a constant rate: yuv4mpeg, or RGB without any header.

    yuv4mpeg does not state a YUV matrix. So the one is taken that its readers assume: BT.709 from 720 lines up, else
    BT.601.

    Args:
        part: where to write: a file, or a `PipePart`.
        rate: frames per second.
        raw: write RGB without any header.
        pixel_aspect: width of a pixel by its height.
    """

    def __init__(self, part: FilePart | PipePart, rate: Fraction, raw: bool, pixel_aspect: Fraction) -> None:
        super().__init__(part)
        self._rate, self._raw, self._aspect = rate, raw, pixel_aspect
        self._file = part.file if isinstance(part, PipePart) else part.path.open("wb")
        self._scaler: Any = None

    def _write(self, frame: Tensor, time: Fraction | None) -> None:
        if self._raw:
            self._file.write(frame.permute(1, 2, 0).contiguous().numpy().tobytes())
        else:
            self._write_yuv(frame)
        self._file.flush()

    def _write_yuv(self, frame: Tensor) -> None:
        height, width = frame.shape[1:]
        kind, name = ("yuv444p", "444") if height % 2 or width % 2 else ("yuv420p", "420mpeg2")
        if self._scaler is None:
            self._scaler = new_scaler()
            rate, aspect = (f"{x.numerator}:{x.denominator}" for x in (self._rate, self._aspect))
            header = f"YUV4MPEG2 W{width} H{height} F{rate} Ip A{aspect} C{name} XCOLORRANGE=LIMITED\n"
            self._file.write(header.encode())
        picture = to_frame(frame, kind, self._scaler, SDR if height >= 720 else SD)
        self._file.write(b"FRAME\n" + picture.to_ndarray().tobytes())

    def _finish(self) -> None:
        self._file.flush()
        if not isinstance(self._part, PipePart):
            self._file.close()
        self._part.finish()
