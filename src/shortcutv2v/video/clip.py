"""Reading a clip as a stream: one frame in memory at a time, whatever the length.

Decoding is PyAV's (FFmpeg's libraries inside the process). Rejected: torchvision.io, which no longer reads video;
torchcodec, which needs an FFmpeg of its own on the machine; decord, no longer maintained; OpenCV, which hides time
stamps and sound; an `ffmpeg` subprocess, which a machine with only Python and pip does not have.
"""

from __future__ import annotations

import itertools
import os
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video import _clock, _stream
from shortcutv2v.video._av import PathLike, is_cover, opened, reason
from shortcutv2v.video._decode import decode
from shortcutv2v.video._pipe import Raw, is_pipe, spooled
from shortcutv2v.video._shape import IMAGE_SUFFIXES, SDR, VIDEO_SUFFIXES, Colour, Size
from shortcutv2v.video.base import Clip
from shortcutv2v.video.picture import ToTensor, quarter_turns, read_image, upright_size

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    _Opened = tuple[InputContainer, VideoStream, _clock.Timeline, Iterator[VideoFrame]]

__all__ = ["Clip", "FolderClip", "VideoClip", "list_frames", "open"]


INPUT = "standard input"
"""Name of a clip that comes from a file object."""


class VideoClip(Clip):
    """A video file, or standard input, which can be iterated once; see `open`."""

    def __init__(
        self, path: Path, convert: ToTensor, start: int, stop: int | None, file: IO[bytes] | None, raw: Raw | None
    ) -> None:
        super().__init__(path, convert, start, stop)
        self.file: Path | IO[bytes] = path if file is None else file
        self._raw = None if raw is None else raw.options
        if file is None and is_pipe(path):
            spool = spooled(path)
            self.file = Path(spool.name)
            weakref.finalize(self, spool.close)
        self._begun: tuple[ExitStack, _Opened] | None = None
        self._once = False
        with ExitStack() as stack:
            container, stream, timeline, frames = stack.enter_context(self._opened())
            self._describe(container, stream)
            # Decode the first frame at once: its size and rotation count, and an unusable file fails here.
            first = next(frames, None)
            if first is None:
                raise _stream.no_frames(path, self._total)
            self._look_at(first, stream)
            if file is not None:
                self._once = True
                self._begun = stack.pop_all(), (container, stream, timeline, itertools.chain([first], frames))

    def _describe(self, container: InputContainer, stream: VideoStream) -> None:
        """Note what the container says."""
        self.rate, self.time_base = _clock.rate(container, stream), _clock.time_base(stream)
        self.begin = _clock.begin_of(container, [stream, *container.streams.audio])
        self.lost, self.sounds = _extras(container, stream), len(container.streams.audio)
        self._total = _stream.promised(container, stream)

    def _look_at(self, first: VideoFrame, stream: VideoStream) -> None:
        """Note what the first frame says."""
        self.size, self._stored = self._convert.size(first), upright_size(first)
        self.colour = Colour.of(first, stream.codec_context)
        self._convert.tone_map = self._convert.tone_map and bool(self.colour.hdr)
        self.colour = SDR if self._convert.tone_map else self.colour
        if self._convert.keeps_ratio:
            aspect = Fraction(stream.sample_aspect_ratio or 1)
            self.pixel_aspect = 1 / aspect if quarter_turns(first) % 2 else aspect

    @contextmanager
    def _opened(self) -> Iterator[_Opened]:
        """Open the video; what was read of standard input already comes first."""
        if self._begun is not None:
            (stack, found), self._begun = self._begun, None
            with stack:
                yield found
            return
        if self._once:
            raise VideoError(f"{self.path}: was read already and comes only once; write it to a file first")
        with opened(self.path, self.file, self._raw) as (container, stream):
            timeline, beside = _clock.Timeline(container), container.streams.audio
            yield container, stream, timeline, decode(self.path, container, stream, beside=beside, timeline=timeline)

    def _decode(self) -> Iterator[tuple[Fraction, Callable[[], Tensor]]]:
        with self._opened() as (container, stream, timeline, frames):
            if not stream.codec_context.is_open:
                stream.thread_type = "AUTO"
            clock = _clock.Clock(container, stream)
            count, end = 0, None
            for frame in frames:
                if upright_size(frame) != self._stored:
                    raise _size_changed(self.path, count, upright_size(frame), self._stored)
                count += 1
                lasts = getattr(frame, "duration", 0) or 0
                end = None if frame.pts is None else frame.pts + lasts
                self.last, self.skipped = lasts * self.time_base, timeline.skipped
                yield clock(frame) * self.time_base, lambda frame=frame: self._convert(frame)  # type: ignore[misc]
            if timeline.lost:
                self.lost.append(f"pictures that cannot be decoded ({timeline.lost})")
            if isinstance(self.file, Path):
                self.ends = _stream.check_complete(self.path, self.file, (container, stream), self._total, count, end)
            else:
                self.ends = _stream.check_pipe(self.path, container, getattr(self.file, "count", None), timeline, count)


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
        self._total = len(self.files)
        self.rate, self.time_base = rate, 1 / rate
        first = read_image(self.files[0])
        self.size = self._convert.size(first)
        self._stored = upright_size(first)

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
    path: PathLike | IO[bytes],
    *,
    size: Size = None,
    multiple: int = 1,
    start: int = 0,
    stop: int | None = None,
    rate: Fraction | float | None = None,
    tone_map: bool = False,
    raw: str | None = None,
) -> Clip:
    """Open a video file, a folder of frames or standard input for reading in order.

    Args:
        path: a video file that FFmpeg reads, a named pipe with such a file, or a folder of images; or a binary file
            object such as `StandardInput()`, which is read once, as it comes, and may hold yuv4mpeg or any other
            format that needs no seeking.
        size: read at this size: a height (the width follows), an (H, W), or None for the stored size.
        multiple: with `size` as a height, round height and width to multiples of this number.
        start: first frame to read, counted from 0.
        stop: the frame to stop before; None for the end.
        rate: frames per second of a folder (25 if not given); a video file states its own.
        tone_map: map HDR (PQ, HLG) to BT.709 by FFmpeg's filter; else values and tags are kept.
        raw: "WIDTHxHEIGHT@RATE" of a file object that holds RGB bytes without any header.

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
    tensors = ToTensor(size, multiple, tone_map)
    if not isinstance(path, (str, os.PathLike)):
        form = None if raw is None else Raw.parse(raw)
        return VideoClip(Path(INPUT), tensors, start, stop, path, form)
    path = Path(path)
    if raw is not None:
        raise VideoError(f"{path}: raw={raw} is for standard input; a file states its own format")
    if os.path.isdir(path):
        return FolderClip(path, tensors, start, stop, Fraction(25) if rate is None else _stream.as_rate(rate))
    if rate is not None:
        raise VideoError(f"{path}: rate={rate} is for folders of frames; a video file keeps the rate it states")
    return VideoClip(path, tensors, start, stop, None, None)
