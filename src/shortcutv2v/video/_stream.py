"""What a container says about its video stream, what comes out of it, and whether the two agree."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import load, reason

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = [
    "Clock",
    "as_rate",
    "check_complete",
    "damaged",
    "decode",
    "nothing_came",
    "promised",
    "rate",
    "stores_no_stamps",
    "time_base",
]


def rate(stream: VideoStream) -> Fraction:
    """Frames per second: the average, or FFmpeg's guess, or 25 where there is neither."""
    for found in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if found:
            return Fraction(found)
    return Fraction(25)


def as_rate(rate: Fraction | float) -> Fraction:
    """Frames per second as a user gives them.

    Raises:
        VideoError: no number above 0.
    """
    try:
        found = Fraction(rate).limit_denominator(1_000_000)
    except (TypeError, ValueError, OverflowError):
        found = Fraction(0)
    if found <= 0:
        raise VideoError(f"rate={rate!r} is no frame rate; expected frames per second above 0, such as 25")
    return found


def time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick of the stream's time stamps."""
    return Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000)


def stores_no_stamps(container: InputContainer) -> bool:
    """Whether the container keeps frames in order, but no time stamps."""
    return container.format.name == "avi"


def promised(container: InputContainer, stream: VideoStream) -> int | None:
    """How many frames the container says will be shown; None when it keeps no count.

    Only the mp4 family keeps one that can be trusted. Its sample table also lists frames that an edit list hides;
    FFmpeg marks those in its index.
    """
    if "mp4" not in container.format.name or not stream.frames:
        return None
    index = getattr(stream, "index_entries", None)
    if index is None or not len(index):
        return int(stream.frames)
    return sum(not entry.is_discard for entry in index)


def decode(
    path: Path, container: InputContainer, stream: VideoStream, since: int | None = None, first: int = 0
) -> Iterator[VideoFrame]:
    """All frames in display order, from where the container stands.

    Args:
        path: the file's name, for messages.
        container: the open file.
        stream: its video stream.
        since: after seeking, the time stamp of the key frame sought. Frames shown before it are dropped: they may
            lean on others that were not decoded.
        first: that key frame's number, for messages.

    Raises:
        VideoError: FFmpeg meets damage; the message says at which frame and how to read what lies before.
    """
    number = first
    for frame, error in _tries(container, stream):
        if since is not None and frame is not None and frame.pts is not None and frame.pts < since:
            continue
        if error is not None:
            raise damaged(path, number, reason(error)) from error
        if frame is None or frame.is_corrupt:
            raise damaged(path, number, "pieces of the picture are missing")
        yield frame
        number += 1


def _tries(
    container: InputContainer, stream: VideoStream
) -> Iterator[tuple[VideoFrame, None] | tuple[None, Exception | None]]:
    """Every frame, and at the first damage (None, the error if there is one), then the end."""
    av = load()
    started = False
    try:
        for packet in container.demux(stream):
            # A recording that began midway opens with frames that lean on others never recorded.
            started = started or packet.is_keyframe
            if not started:
                continue
            if packet.is_corrupt:
                yield from ((frame, None) for frame in _drain(stream))
                yield None, None
                return
            for frame in packet.decode():
                yield frame, None
    except av.error.FFmpegError as error:
        yield from ((frame, None) for frame in _drain(stream))
        yield None, error


def _drain(stream: VideoStream) -> list[VideoFrame]:
    """The whole frames that the decoder's threads had ready when it met damage."""
    try:
        return [frame for frame in stream.codec_context.decode(None) if not frame.is_corrupt]
    except load().error.FFmpegError:
        return []


def damaged(path: Path, number: int, why: str) -> VideoError:
    """The error for a file that breaks off or breaks down at frame `number`."""
    keep = f", or read only the part before with stop={number}" if number else ""
    return VideoError(f"{path}: damaged or truncated near frame {number} ({why}); get a whole copy{keep}")


def nothing_came(path: Path, promise: int | None) -> VideoError:
    """The error for a file with a video stream and no frame in it."""
    if promise:
        return damaged(path, 0, f"the file promises {promise} frames, not one came")
    return VideoError(f"{path}: empty video, not one frame in it; expected at least one")


class Clock:
    """Turns the time stamps of decoded frames into whole ticks that always rise.

    A missing stamp continues at the stated rate; one that does not rise (some broadcast recordings) is moved to the
    next tick, since no container accepts it and no frame may be dropped. All others pass unchanged,
    except in AVI files: these store no time stamps, frames follow one another at the stated rate, and what FFmpeg makes
    up is wrong with B-frames.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.step = max(1, round(1 / (time_base(stream) * rate(stream))))
        self._count_only = stores_no_stamps(container)
        self.span: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> int:
        """The tick of the next frame."""
        stamp = None if self._count_only else frame.pts
        if self.span is None:
            stamp = stamp or 0
            self.span = stamp, stamp
            return stamp
        first, last = self.span
        stamp = last + self.step if stamp is None else max(stamp, last + 1)
        self.span = first, stamp
        return stamp


def check_complete(
    path: Path, stream: VideoStream, promise: int | None, count: int, span: tuple[int, int] | None
) -> None:
    """Compare what came with what the container said.

    Args:
        path: the file's name, for messages.
        stream: its video stream.
        promise: what `promised` said.
        count: how many frames came.
        span: ticks of the first and the last of them.

    Raises:
        VideoError: frames are missing at the end: by count in the mp4 family, elsewhere by the stated duration.
    """
    if promise is not None:
        if count < promise:
            raise damaged(path, count, f"the file promises {promise} frames")
        return
    if span is None:
        return
    base, step = time_base(stream), 1 / rate(stream)
    end = span[1] * base + step
    stated = (span[0] + stream.duration) * base if stream.duration else _stated_end(stream)
    # Half a second of grace: containers round, and guess the length of the last frame.
    if stated - end > max(Fraction(1, 2), 2 * step):
        raise damaged(path, count, f"the file promises {float(stated - end):.2f} s more")


def _stated_end(stream: VideoStream) -> Fraction:
    """Where the stream ends, in seconds, after the tag that Matroska writers leave; 0 without one."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (Fraction(part) for part in parts)
    except ValueError:
        return Fraction(0)
    return hours * 3600 + minutes * 60 + seconds
