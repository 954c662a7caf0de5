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

__all__ = ["Clock", "check_complete", "damaged", "decode", "promised", "rate", "time_base"]


def rate(stream: VideoStream) -> Fraction:
    """Frames per second: the average, or FFmpeg's guess, or 25 where there is neither."""
    for found in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if found:
            return Fraction(found)
    return Fraction(25)


def time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick of the stream's time stamps."""
    return Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000)


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
    path: Path, container: InputContainer, stream: VideoStream, since: int | None = None
) -> Iterator[VideoFrame]:
    """All frames in display order, from where the container stands.

    Args:
        path: the file's name, for messages.
        container: the open file.
        stream: its video stream.
        since: after seeking, the time stamp of the key frame sought. Frames shown before it are dropped: they may
            lean on others that were not decoded.

    Raises:
        VideoError: FFmpeg meets damage; the message says at which frame and how to read what lies before.
    """
    av = load()
    number = 0
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                if since is not None and frame.pts is not None and frame.pts < since:
                    continue
                if frame.is_corrupt:
                    raise damaged(path, number, "pieces of the picture are missing")
                yield frame
                number += 1
    except av.error.FFmpegError as error:
        raise damaged(path, number, reason(error)) from error


def damaged(path: Path, number: int, why: str) -> VideoError:
    """The error for a file that breaks off or breaks down at frame `number`."""
    keep = f"read only the part before with stop={number}" if number else "there is nothing readable before it"
    return VideoError(f"{path}: damaged or truncated near frame {number} ({why}); get a whole copy, or {keep}")


class Clock:
    """Turns the time stamps of decoded frames into whole ticks that always rise.

    A missing stamp continues at the stated rate; one that does not rise (some broadcast recordings) is moved to the
    next tick, since no container accepts it and no frame may be dropped. All others pass unchanged.
    """

    def __init__(self, base: Fraction, frame_rate: Fraction) -> None:
        self.step = max(1, round(1 / (base * frame_rate)))
        self.first: int | None = None
        self.last: int | None = None

    def __call__(self, frame: VideoFrame) -> int:
        """The tick of the next frame."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        if stamp is None:
            stamp = 0 if self.last is None else self.last + self.step
        if self.last is not None:
            stamp = max(stamp, self.last + 1)
        if self.first is None:
            self.first = stamp
        self.last = stamp
        return stamp


def check_complete(path: Path, stream: VideoStream, count: int, promise: int | None, clock: Clock) -> None:
    """Compare what came with what the container said.

    Raises:
        VideoError: frames are missing at the end: by count in the mp4 family, elsewhere by the stated duration.
    """
    if promise is not None:
        if count < promise:
            raise damaged(path, count, f"the file promises {promise} frames, {count} came")
        return
    if clock.first is None or clock.last is None:
        return
    base = time_base(stream)
    end = (clock.last + clock.step) * base
    stated = (clock.first + stream.duration) * base if stream.duration else _stated_end(stream)
    # Half a second of grace: containers round, and guess the length of the last frame.
    if stated - end > max(Fraction(1, 2), 2 * clock.step * base):
        raise damaged(path, count, f"the file promises {float(stated - end):.2f} s more than came")


def _stated_end(stream: VideoStream) -> Fraction:
    """Where the stream ends, in seconds, after the tag that Matroska writers leave; 0 without one."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (Fraction(part) for part in parts)
    except ValueError:
        return Fraction(0)
    return hours * 3600 + minutes * 60 + seconds
