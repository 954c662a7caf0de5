"""Reading a clip as a stream: one frame in memory at a time, whatever the length.

Decoding is PyAV's (FFmpeg's libraries inside the process). Rejected: torchvision.io, which no longer reads video;
torchcodec, which needs an FFmpeg of its own on the machine; decord, no longer maintained; OpenCV, which hides time
stamps and sound; an `ffmpeg` subprocess, which a machine with only Python and pip does not have.
"""

from __future__ import annotations

import os
import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video import _clock, _stream
from shortcutv2v.video._av import PathLike, is_cover, opened, reason
from shortcutv2v.video._decode import decode
from shortcutv2v.video._pipe import is_pipe, spooled
from shortcutv2v.video._shape import IMAGE_SUFFIXES, SDR, VIDEO_SUFFIXES, Colour, Size
from shortcutv2v.video.picture import ToTensor, quarter_turns, read_image, upright_size

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.stream import VideoStream

__all__ = ["Clip", "FolderClip", "VideoClip", "list_frames", "open"]


class Clip(ABC):
    """A video file or a folder of frames. Iterating yields uint8 tensors of shape (3, H, W), RGB, as often as you like.

    Attributes:
        path: where it was opened.
        size: (H, W) of the frames that come out, after rotation and resizing.
        rate: frames per second; the average if the rate varies.
        frames: how many frames will come, if the container says so; else None.
        time_base: the unit, in seconds, of which every time stamp is a whole multiple.
        pixel_aspect: width of a pixel by its height; 1 unless the video is anamorphic and read at its own shape.
        begin: the time, in seconds, at which the file begins; None if it states no times.
        colour: how the pixel values are to be shown.
        lost: kinds of content in the file that frames and sound do not carry, such as subtitles.
        skipped: how many pictures before the first key frame were left out, because they depend on others.
        sounds: how many sound tracks the file has.
        last: how long the last frame read is shown, in seconds; 0 if the file does not say.
        ends: whether the file says where it ends, so that a missing end is noticed; known after reading it.
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)
    begin: Fraction | None = Fraction(0)
    colour: Colour = SDR
    sounds: int = 0
    skipped: int = 0
    last: Fraction = Fraction(0)
    ends: bool = True

    def __init__(self, path: Path, convert: ToTensor, start: int, stop: int | None) -> None:
        if start < 0 or (stop is not None and stop <= start):
            raise VideoError(f"{path}: start={start}, stop={stop} is no frame range; expected 0 <= start < stop")
        self.path = path
        self.start, self.stop = start, stop
        self.lost: list[str] = []
        self._convert = convert
        # Weak: an abandoned iteration must be freed at once, with its decoder threads. The garbage collector might
        # first run in a forked worker, and wait there for threads that stayed in the parent.
        self._running: weakref.WeakSet[Generator[tuple[Fraction, Tensor]]] = weakref.WeakSet()

    @property
    def frames(self) -> int | None:
        """Number of frames that will come, if the container says so; else None."""
        total = self._total()
        if total is None:
            return None
        return max(0, min(total, total if self.stop is None else self.stop) - self.start)

    def timed(self) -> Iterator[tuple[Fraction, Tensor]]:
        """Yield (time, frame): seconds as an exact fraction, strictly rising, and uint8 (3, H, W).

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
            raise VideoError(f"{self.path}: has only {number + 1} frames; start={self.start} lies after them")

    @property
    def transparent(self) -> bool:
        """True if a frame so far had pixels that are not opaque; their hidden colours come out."""
        return self._convert.transparent

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the frames alone."""
        return (frame for _, frame in self.timed())

    def __enter__(self) -> Clip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every running iteration and close its file; the clip can be iterated anew."""
        for run in list(self._running):
            run.close()
        self._running.clear()

    @abstractmethod
    def _total(self) -> int | None:
        """Return the number of frames in the whole clip; ignore the range."""

    @abstractmethod
    def _decode(self) -> Iterator[tuple[Fraction, Callable[[], Tensor]]]:
        """Yield the time of every frame and a function that converts it: frames before the range are not converted."""


class VideoClip(Clip):
    """A video file; see `open`."""

    def __init__(self, path: Path, convert: ToTensor, start: int, stop: int | None) -> None:
        super().__init__(path, convert, start, stop)
        self.file = path
        if is_pipe(path):
            spool = spooled(path)
            self.file = Path(spool.name)
            weakref.finalize(self, spool.close)
        with opened(path, self.file) as (container, stream):
            self.rate, self.time_base = _clock.rate(container, stream), _clock.time_base(stream)
            self.begin = _clock.begin_of(container, [stream, *container.streams.audio])
            self.lost, self.sounds = _extras(container, stream), len(container.streams.audio)
            self._promise = _stream.promised(container, stream)
            # Decode the first frame at once: its size and rotation count, and an unusable file fails here.
            first = next(decode(path, container, stream), None)
            if first is None:
                raise _stream.no_frames(path, self._promise)
            self.size = self._convert.size(first)
            self._stored = upright_size(first)
            self.colour = Colour.of(first, stream.codec_context)
            convert.tone_map = convert.tone_map and bool(self.colour.hdr)
            self.colour = SDR if convert.tone_map else self.colour
            if convert.keeps_ratio:
                aspect = Fraction(stream.sample_aspect_ratio or 1)
                self.pixel_aspect = 1 / aspect if quarter_turns(first) % 2 else aspect

    def _total(self) -> int | None:
        return self._promise

    def _decode(self) -> Iterator[tuple[Fraction, Callable[[], Tensor]]]:
        with opened(self.path, self.file) as (container, stream):
            stream.thread_type = "AUTO"
            clock = _clock.Clock(container, stream)
            count, end = 0, None
            timeline, beside = _clock.Timeline(container), container.streams.audio
            for frame in decode(self.path, container, stream, beside=beside, timeline=timeline):
                if upright_size(frame) != self._stored:
                    raise _size_changed(self.path, count, upright_size(frame), self._stored)
                count += 1
                lasts = getattr(frame, "duration", 0) or 0
                end = None if frame.pts is None else frame.pts + lasts
                self.last, self.skipped = lasts * self.time_base, timeline.skipped
                yield clock(frame) * self.time_base, lambda frame=frame: self._convert(frame)  # type: ignore[misc]
            if timeline.lost:
                self.lost.append(f"pictures that cannot be decoded ({timeline.lost})")
            self.ends = _stream.check_complete(self.path, self.file, (container, stream), self._promise, count, end)


def _extras(container: InputContainer, picture: VideoStream) -> list[str]:
    """Return what a container holds that is neither the picture nor its sound, in words."""
    pictures = sum(not is_cover(s) for s in container.streams.video) - 1
    counts = {"other picture tracks": pictures}
    for kind, word in (("subtitles", "subtitle tracks"), ("attachments", "attachments"), ("data", "data tracks")):
        counts[word] = len(getattr(container.streams, kind, ()))
    chapters: Any = getattr(container, "chapters", list)
    counts["chapters"] = len(chapters())
    return [f"{word} ({count})" for word, count in counts.items() if count > 0]


class FolderClip(Clip):
    """A folder of numbered images; see `open`."""

    def __init__(self, path: Path, convert: ToTensor, start: int, stop: int | None, rate: Fraction) -> None:
        super().__init__(path, convert, start, stop)
        convert.tone_map = False  # images are not HDR
        self.files = list_frames(path)
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
        """Return frame `number` of the folder, uint8 (3, H, W); ignore the range."""
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
    """Return the image files of a folder in natural order (frame2 before frame10), without hidden files.

    Raises:
        VideoError: there are none, or the folder cannot be read.
    """
    try:
        inside = [p for p in folder.iterdir() if not p.name.startswith(".")]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read ({reason(error)})") from error
    files = [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES]
    if files:
        return sorted(files, key=_natural)
    videos = [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        raise VideoError(
            f"{folder}: a folder of videos, not of frames; give one of its {len(videos)} videos, such as {min(videos)}"
        )
    raise VideoError(f"{folder}: no frames in this folder; expected images named {', '.join(sorted(IMAGE_SUFFIXES))}")


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def open(  # noqa: A001 - called as video.open, like gzip.open
    path: PathLike,
    *,
    size: Size = None,
    multiple: int = 1,
    start: int = 0,
    stop: int | None = None,
    rate: Fraction | float | None = None,
    tone_map: bool = False,
) -> Clip:
    """Open a video file or a folder of frames for reading in order.

    Args:
        path: a video file that FFmpeg reads, a named pipe with such a file, or a folder of images.
        size: read at this size: a height (the width follows), an (H, W), or None for the stored size.
        multiple: with `size` as a height, round height and width to multiples of this number.
        start: first frame to read, counted from 0.
        stop: the frame to stop before; None for the end.
        rate: frames per second of a folder (25 if not given); a video file states its own.
        tone_map: map HDR (PQ, HLG) to BT.709 by FFmpeg's filter; else values and tags are kept.

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
    path, tensors = Path(path), ToTensor(size, multiple, tone_map)
    if os.path.isdir(path):
        return FolderClip(path, tensors, start, stop, Fraction(25) if rate is None else _stream.as_rate(rate))
    if rate is not None:
        raise VideoError(f"{path}: rate={rate} is for folders of frames; a video file keeps the rate it states")
    return VideoClip(path, tensors, start, stop)
