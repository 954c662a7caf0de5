"""Writing a clip: under a temporary name first, under its own name only when it is whole.

H.264 holds 4:2:0 colour (yuv420p), which every player shows, only at even sizes. A clip of odd height or width is
written with full colour resolution (yuv444p) instead, at exactly its size. Rejected: padding or cropping by a line,
because then the file would not hold what the model made; scaling, for the same reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import load
from shortcutv2v.video._part import FilePart, FolderPart, Part, PipePart
from shortcutv2v.video._shape import SD, SDR, Colour
from shortcutv2v.video.audio import AudioCopy
from shortcutv2v.video.picture import ImageEncoder, check_frame, new_scaler, to_frame

__all__ = ["CONTAINER_OPTIONS", "WRITABLE", "FolderWriter", "PlainWriter", "VideoWriter", "Writer"]

WRITABLE = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes of files with H.264 in them, and the formats as FFmpeg names them."""
CONTAINER_OPTIONS = {
    # The index goes to the front, so that a browser can begin to play before it has the whole file.
    "mp4": {"movflags": "+faststart"},
    "mov": {"movflags": "+faststart"},
    # AAC sound begins a moment before 0; by default the picture would be moved instead.
    "matroska": {"avoid_negative_ts": "disabled"},
}
_LIMITED = 1
# The same packets every time and everywhere. The default number of threads is that of the processors; and with AVX,
# x264's `mbtree` made other packets of the same pixels in one run of ten (its C code and SSE do not).
_EXACT = {"threads": "4", "x264-params": "asm=SSE4.2"}


class Writer(AbstractContextManager["Writer"], ABC):
    """Takes frames one by one; the target appears when the `with` block ends well, and not at all if it fails.

    Attributes:
        target: the final path.
        count: frames written so far.
        last: how long the last frame is to be shown, in seconds; 0 for one frame at the given rate.
    """

    def __init__(self, part: Part | PipePart) -> None:
        load()
        self.target = part.target
        self.count = 0
        self.last = Fraction(0)
        self.size: tuple[int, int] | None = None
        self._ended = False
        self._part = part

    def write(self, frame: Tensor, time: Fraction | None = None) -> None:
        """Append a frame.

        Args:
            frame: uint8 (3, H, W), RGB; every frame of the size of the first.
            time: its time stamp in seconds, above the one before; default: the next at the given rate.

        Raises:
            VideoError: the frame is no picture or has another size, or the target cannot be written or is closed.
        """
        if self._ended:
            raise VideoError(f"{self.target}: frame {self.count} comes too late; write every frame before close()")
        frame = check_frame(frame, f"{self.target}: frame {self.count} to be written")
        size = frame.shape[1], frame.shape[2]
        if self.size is None:
            self.size = size
        elif size != self.size:
            raise VideoError(
                f"{self.target}: frame {self.count} to be written is {size[0]}x{size[1]} (height x width), frame 0 was "
                f"{self.size[0]}x{self.size[1]}; expected one size throughout"
            )
        try:
            self._write(frame, time)
        except (OSError, load().error.FFmpegError) as error:
            raise self._part.refused(error) from error
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def close(self) -> None:
        """Finish the clip and give it its name; do nothing if it is closed or discarded already.

        Raises:
            VideoError: no frame was written, or the target cannot be written.
        """
        if self._ended:
            return
        try:
            if not self.count:
                raise VideoError(f"{self.target}: no frame was written; expected at least one")
            self._finish()
        except (OSError, load().error.FFmpegError) as error:
            raise self._part.refused(error) from error
        finally:
            self.discard()

    @abstractmethod
    def _write(self, frame: Tensor, time: Fraction | None) -> None:
        """Append one checked frame."""

    def _finish(self) -> None:
        """Complete the temporary and rename it."""
        self._part.finish()

    def discard(self) -> None:
        """Give up: remove the temporary with the frames written so far."""
        self._ended = True
        self._part.remove()


class VideoWriter(Writer):
    """Encodes H.264; made by `writer_for`, or by `Pieces`, whose packets must be the same every time."""

    def __init__(
        self,
        target: Path,
        rate: Fraction,
        time_base: Fraction,
        crf: float,
        preset: str,
        audio: AudioCopy | None = None,
        pixel_aspect: Fraction = Fraction(1),
        colour: Colour = SDR,
        exact: bool = False,
    ) -> None:
        super().__init__(FilePart(target))
        self._rate = rate.limit_denominator(1_000_000)
        self._base, self._crf, self._preset, self._audio = time_base, crf, preset, audio
        self._pixel_aspect, self._colour, self._exact = pixel_aspect, colour, exact
        self._container: Any = None
        self._stream: Any = None
        self._scaler: Any = None
        self._held: tuple[Any, int] | None = None
        self._durations: dict[int, int] = {}

    def _write(self, frame: Tensor, time: Fraction | None) -> None:
        if self._container is None:
            self._start(frame.shape[1], frame.shape[2])
        tick = self._tick(time)
        self._encode_held(tick)
        picture = to_frame(frame, self._stream.pix_fmt, self._scaler, self._colour)
        picture.pts, picture.time_base = tick, self._base
        self._held = picture, tick

    def _start(self, height: int, width: int) -> None:
        kind = WRITABLE[self.target.suffix.lower()]
        self._container = load().open(f"file:{self._part.path}", "w", format=kind, options=CONTAINER_OPTIONS[kind])
        try:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
        except ValueError as error:
            raise VideoError(
                "this PyAV cannot encode H.264 (libx264); type: pip install --force-reinstall av"
            ) from error
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        self._stream.options = {"crf": str(self._crf), "preset": self._preset}
        self._stream.codec_context.time_base = self._base
        if self._exact:
            self._stream.options |= _EXACT
        if self._pixel_aspect != 1:
            self._stream.codec_context.sample_aspect_ratio = self._pixel_aspect
        codec = self._stream.codec_context
        codec.color_primaries, codec.color_trc = self._colour.primaries, self._colour.transfer
        codec.colorspace, codec.color_range = self._colour.matrix, _LIMITED
        self._scaler = new_scaler()
        if self._audio is not None:
            self._audio.attach(self._container, self.target)

    def _tick(self, time: Fraction | None) -> int:
        tick = round((self.count / self._rate if time is None else time) / self._base)
        if self._held is not None and tick <= self._held[1]:
            raise VideoError(
                f"{self.target}: frame {self.count} has time {float(tick * self._base)} s, not above the one before; "
                "expected rising times"
            )
        return tick

    def _encode_held(self, following: int) -> None:
        """Encode the frame held back: the time of the following one says how long it lasts."""
        if self._held is None:
            return
        picture, tick = self._held
        self._durations[tick] = following - tick
        if self._audio is not None:
            self._audio.write_until(self._container, tick * self._base)
        self._mux(self._stream.encode(picture))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # The encoder has only the nominal rate; without this the file's length is wrong if the rate varies.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _finish(self) -> None:
        tick = self._held[1] if self._held else 0
        self._encode_held(tick + max(1, round((self.last or 1 / self._rate) / self._base)))
        self._mux(self._stream.encode(None))
        if self._audio is not None:
            self._audio.write_until(self._container, None)
        self._container.close()
        self._container = None
        super()._finish()

    def discard(self) -> None:
        """Give up: remove the temporary with the frames written so far."""
        if self._container is not None:
            container, self._container = self._container, None
            with suppress(load().error.FFmpegError):
                container.close()
        super().discard()


class FolderWriter(Writer):
    """Writes one image per frame; made by `writer_for`."""

    def __init__(self, target: Path, suffix: str, names: list[str] | None = None) -> None:
        super().__init__(FolderPart(target))
        self._suffix, self._names = suffix, names
        self._encoder: ImageEncoder | None = None

    def _write(self, frame: Tensor, time: Fraction | None) -> None:
        if self._encoder is None:
            self._encoder = ImageEncoder(self._suffix, (frame.shape[1], frame.shape[2]))
        stem = f"{self.count:06d}" if self._names is None else self._names[self.count]
        (self._part.path / f"{stem}{self._suffix}").write_bytes(self._encoder(frame))


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
        super()._finish()
