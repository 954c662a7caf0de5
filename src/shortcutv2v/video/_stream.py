"""Check that the pictures came that a container promises."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from shortcutv2v.errors import VideoError
from shortcutv2v.video._clock import Timeline, rate, time_base
from shortcutv2v.video._ending import CUT, WHOLE, ending

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.stream import VideoStream

__all__ = ["as_rate", "check_complete", "check_pipe", "damaged", "no_frames", "promised"]

_STATE_DURATION = {"avi", "matroska", "flv", "asf", "mxf", "nut", "rm"}


def as_rate(rate: Fraction | float) -> Fraction:
    """Return frames per second as a user gives them.

    Raises:
        VideoError: it is not a number above 0.
    """
    try:
        found = Fraction(rate).limit_denominator(1_000_000)
    except (TypeError, ValueError, OverflowError):
        found = Fraction(0)
    if found <= 0:
        raise VideoError(f"rate={rate!r} is no frame rate; expected frames per second above 0, such as 25")
    return found


def promised(container: InputContainer, stream: VideoStream) -> int | None:
    """Return how many frames the container says will be shown; None if it keeps no count.

    Only the mp4 family keeps a count that can be trusted. Its sample table also lists frames that an edit list hides;
    FFmpeg marks those in its index.
    """
    if "mp4" not in container.format.name or not stream.frames:
        return None
    index = getattr(stream, "index_entries", None)
    if index is None or not len(index):
        return int(stream.frames)
    return sum(not entry.is_discard for entry in index)


def damaged(path: Path, number: int, why: str) -> VideoError:
    """Return the error for a file that breaks off or breaks down at frame `number`."""
    keep = f", or read only the part before with stop={number}" if number else ""
    return VideoError(f"{path}: damaged or truncated near frame {number} ({why}); get a whole copy{keep}")


def no_frames(path: Path, promise: int | None) -> VideoError:
    """Return the error for a file with a video stream and no frame in it."""
    if promise:
        return damaged(path, 0, f"the file promises {promise} frames, not one came")
    return VideoError(f"{path}: empty video, not one frame in it; expected at least one")


def check_complete(
    path: Path,
    file: Path,
    opened: tuple[InputContainer, VideoStream],
    promise: int | None,
    count: int,
    end: int | None,
) -> bool:
    """Compare the frames that came with what the file says of itself.

    Args:
        path: the file's name, for messages.
        file: the file itself.
        opened: the open file and its video stream.
        promise: the result of `promised`.
        count: how many frames came.
        end: the time stamp of the last of them, or better of its end; None if it has none.

    Returns:
        Whether the file says where it ends, in any way.

    Raises:
        VideoError: frames are missing: fewer came than are promised, or the file breaks off.

    Warns:
        UserWarning: the file states a longer duration than came, and nothing else says whether it is whole.
    """
    container, stream = opened
    if promise is not None:
        if count < promise:
            raise damaged(path, count, f"the file promises {promise} frames")
        return True
    found = ending(file, container.format.name, _frame_bytes(stream))
    if found == CUT:
        raise damaged(path, count, "the file breaks off before its end")
    if found == WHOLE:
        return True
    if end is None or not _STATE_DURATION & set(container.format.name.split(",")):
        return False  # FFmpeg estimates the duration from the frames it finds
    base, step = time_base(stream), 1 / rate(container, stream)
    stated = _stated_end(container, stream, end * base)
    missing = float(stated - end * base)
    # Half a second of grace: containers round, and guess the length of the last frame.
    if missing > max(0.5, 2 * float(step)):
        warnings.warn(
            f"{path}: its header states {missing:.2f} s more than came; if its end is missing, get a whole copy",
            stacklevel=2,
        )
    return bool(stated)


def check_pipe(path: Path, container: InputContainer, read: int | None, timeline: Timeline, count: int) -> bool:
    """Check that frames of one size, which came through a pipe, are complete; `read` is how many bytes came.

    Returns:
        Whether the end was checked.

    Raises:
        VideoError: the last frame is incomplete.
    """
    if read is None or container.format.name not in {"yuv4mpegpipe", "rawvideo"}:
        return False
    if read > timeline.end:
        raise damaged(path, count, "the last frame is incomplete")
    return True


def _frame_bytes(stream: VideoStream) -> int:
    """Return the size of an uncompressed frame; 0 for compressed ones."""
    if stream.codec_context.name not in {"rawvideo", "wrapped_avframe"} or stream.codec_context.format is None:
        return 0
    components = stream.codec_context.format.components
    per_sample = max((c.bits + 7) // 8 for c in components)
    return sum(c.width * c.height * per_sample for c in components)


def _stated_end(container: InputContainer, stream: VideoStream, found: Fraction) -> Fraction:
    """Return the end of the pictures in seconds, by the stream, the file, or Matroska's tag; 0 if none states it.

    A file's duration counts its sound, so it says something if there is none, or if it is not longer than the pictures.
    """
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * time_base(stream)
    whole = Fraction((container.start_time or 0) + (container.duration or 0), 1_000_000)
    if container.duration and (len(container.streams) == 1 or whole <= found + Fraction(1, 2)):
        return whole
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (Fraction(part) for part in parts)
    except ValueError:
        return Fraction(0)
    return hours * 3600 + minutes * 60 + seconds
