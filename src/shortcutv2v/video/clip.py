"""Reading a clip as a stream: one frame in memory at a time, whatever the length.

Decoding is PyAV's (FFmpeg's libraries inside the process). Rejected: torchvision.io, which no longer reads video;
torchcodec, which needs an FFmpeg of its own on the machine; decord, no longer maintained; OpenCV, which hides time
stamps and sound; an `ffmpeg` subprocess, which a machine with only Python and pip does not have.
"""

from __future__ import annotations

import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video import _stream
from shortcutv2v.video._av import PathLike, opened
from shortcutv2v.video.picture import IMAGE_SUFFIXES, Size, ToTensor, quarter_turns, read_image, upright_size

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["Clip", "FolderClip", "VideoClip", "list_frames", "open"]


class Clip(ABC):
    """A video file or a folder of frames, to be read in order, as often as one likes.

    Iterating yields uint8 tensors of shape (3, H, W), RGB. `timed` yields the time stamps too.

    Attributes:
        path: where it was opened.
        size: (H, W) of the frames as they come out, after rotation and resizing.
        rate: frames per second; the average where the rate varies.
        frames: how many will come, as far as the container says; None when it does not.
        time_base: the unit, in seconds, of which every time stamp is a whole multiple.
        pixel_aspect: width of a pixel by its height; 1 but for anamorphic video read at its own shape.
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)

    def __init__(self, path: Path, start: int, stop: int | None) -> None:
        if start < 0 or (stop is not None and stop <= start):
            raise VideoError(f"{path}: start={start}, stop={stop} is no frame range; expected 0 <= start < stop")
        self.path = path
        self.start, self.stop = start, stop
        # Weak: an abandoned iteration must be freed, decoder threads and all, at once and not by the garbage collector,
        # which might first run in a forked worker and wait there for threads that stayed in the parent.
        self._running: weakref.WeakSet[Generator[tuple[Fraction, Tensor]]] = weakref.WeakSet()

    @property
    def frames(self) -> int | None:
        """How many frames will come, as far as the container says; None when it does not."""
        total = self._total()
        if total is None:
            return None
        return max(0, min(total, total if self.stop is None else self.stop) - self.start)

    def timed(self) -> Iterator[tuple[Fraction, Tensor]]:
        """Yields (time, frame): seconds as an exact fraction, strictly rising, and uint8 (3, H, W).

        Raises:
            VideoError: a frame cannot be decoded or has another size, or the clip ends before it should.
        """
        run = self._timed()
        self._running.add(run)
        return run

    def _timed(self) -> Generator[tuple[Fraction, Tensor]]:
        number = -1
        for number, (time, get) in enumerate(self._decode()):
            if number >= self.start:
                yield time, get()
            if self.stop is not None and number + 1 >= self.stop:
                return
        if number < self.start:
            raise VideoError(f"{self.path}: has only {number + 1} frames; start={self.start} lies behind them")

    def __iter__(self) -> Iterator[Tensor]:
        """The frames alone."""
        return (frame for _, frame in self.timed())

    def __enter__(self) -> Clip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends every iteration still under way and closes its file; the clip can be iterated anew."""
        for run in list(self._running):
            run.close()
        self._running.clear()

    @abstractmethod
    def _total(self) -> int | None:
        """Frames in the whole clip, range ignored."""

    @abstractmethod
    def _decode(self) -> Iterator[tuple[Fraction, Callable[[], Tensor]]]:
        """Time of every frame, and what converts it: frames before the range are never converted."""


class VideoClip(Clip):
    """A video file; see `open`."""

    def __init__(self, path: Path, size: Size, start: int, stop: int | None) -> None:
        super().__init__(path, start, stop)
        self._convert = ToTensor(size)
        with opened(path) as (container, stream):
            self.rate, self.time_base = _stream.rate(stream), _stream.time_base(stream)
            self._promise = _stream.promised(container, stream)
            # The first frame is decoded at once: its size and rotation count, and an unusable file fails here.
            first = next(_stream.decode(path, container, stream), None)
            if first is None:
                raise _stream.nothing_came(path, self._promise)
            self.size = self._convert.size(first)
            self._stored = upright_size(first)
            if size is None or isinstance(size, int):
                aspect = Fraction(stream.sample_aspect_ratio or 1)
                self.pixel_aspect = 1 / aspect if quarter_turns(first) % 2 else aspect

    def _total(self) -> int | None:
        return self._promise

    def _decode(self) -> Iterator[tuple[Fraction, Callable[[], Tensor]]]:
        with opened(self.path) as (container, stream):
            stream.thread_type = "AUTO"
            clock = _stream.Clock(container, stream)
            count = 0
            for frame in _stream.decode(self.path, container, stream):
                self._same_size(frame, count)
                count += 1
                yield clock(frame) * self.time_base, lambda frame=frame: self._convert(frame)  # type: ignore[misc]
            _stream.check_complete(self.path, stream, self._promise, count, clock.span)

    def _same_size(self, frame: VideoFrame, number: int) -> None:
        if upright_size(frame) != self._stored:
            raise _size_changed(self.path, number, upright_size(frame), self._stored)


class FolderClip(Clip):
    """A folder of numbered images; see `open`."""

    def __init__(self, path: Path, size: Size, start: int, stop: int | None, rate: Fraction) -> None:
        super().__init__(path, start, stop)
        self.files = list_frames(path)
        self._convert = ToTensor(size)
        self.rate, self.time_base = rate, 1 / rate
        first = read_image(self.files[0])
        self.size = self._convert.size(first)
        self._stored = upright_size(first)

    def _total(self) -> int | None:
        return len(self.files)

    def _decode(self) -> Iterator[tuple[Fraction, Callable[[], Tensor]]]:
        for number in range(len(self.files)):
            yield number * self.time_base, lambda number=number: self.read(number)  # type: ignore[misc]

    def read(self, number: int) -> Tensor:
        """Frame `number` of the folder (range ignored), uint8 (3, H, W)."""
        frame = read_image(self.files[number])
        if upright_size(frame) != self._stored:
            raise _size_changed(self.files[number], number, upright_size(frame), self._stored)
        return self._convert(frame)


def _size_changed(path: Path, number: int, new: tuple[int, int], old: tuple[int, int]) -> VideoError:
    return VideoError(
        f"{path}: frame {number} is {new[0]}x{new[1]} (height x width), frame 0 is {old[0]}x{old[1]}; expected one "
        f"size throughout: split the clip there, or read only the part before with stop={number}"
    )


def list_frames(folder: Path) -> list[Path]:
    """The image files of a folder in natural order (frame2 before frame10); hidden files are left out.

    Raises:
        VideoError: there are none.
    """
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise VideoError(
            f"{folder}: no frames in this folder; expected images named {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return sorted(files, key=_natural)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def open(  # noqa: A001 - called as video.open, like gzip.open
    path: PathLike, *, size: Size = None, start: int = 0, stop: int | None = None, rate: Fraction | float | None = None
) -> Clip:
    """Open a video file or a folder of frames for reading in order.

    Args:
        path: a video file of any kind FFmpeg reads, or a folder of images.
        size: read at this size: a height (the width follows), an (H, W), or None for the stored size.
        start: first frame to read, counted from 0.
        stop: the frame to stop before; None for the end.
        rate: frames per second of a folder (25 if not given); a video file states its own.

    Returns:
        The clip; use it in a `with` block.

    Raises:
        VideoError: nothing there, no video, an empty or damaged one, a folder without frames, a bad range.

    Examples:
        ```python
        with video.open("clip.mp4", size=180) as clip:
            print(clip.size, clip.rate, clip.frames)
            for frame in clip:          # uint8 (3, 180, W)
                ...
        ```
    """
    path = Path(path)
    if path.is_dir():
        return FolderClip(path, size, start, stop, Fraction(25) if rate is None else _stream.as_rate(rate))
    if rate is not None:
        raise VideoError(f"{path}: rate={rate} is for folders of frames; a video file keeps the rate it states")
    return VideoClip(path, size, start, stop)
