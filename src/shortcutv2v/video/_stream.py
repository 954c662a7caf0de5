"""The pictures of an open file: those that its container promises, and those that come out of the decoder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import load, reason
from shortcutv2v.video._clock import Timeline, rate, time_base
from shortcutv2v.video._ending import CUT, WHOLE, ending

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["as_rate", "check_complete", "damaged", "decode", "no_frames", "promised"]

# Codecs that paint over damage without an error: some have an option against it, of the others only FFmpeg's log says
# so. Their threads must not log, see `load`, so they run in one.
_EXPLODES = {"mjpeg", "mjpegb", "ljpeg", "png", "apng", "tiff"}
_JOINT = 5  # packets between an incomplete one and a jump of the clock, at most, where two recordings are joined
_ONLY_LOGS = {"gif", "theora", "ffv1", "utvideo", "dvvideo", "wmv1", "wmv2", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3"}
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


def decode(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    *,
    since: int | None = None,
    first: int = 0,
    beside: Sequence[Any] = (),
    timeline: Timeline | None = None,
) -> Iterator[VideoFrame]:
    """Yield all frames in display order, from the place where the container stands.

    Args:
        path: the file's name, for messages.
        container: the open file.
        stream: its video stream.
        since: after seeking, the time stamp of the key frame sought. Frames shown before it are dropped: they may
            depend on others that were not decoded.
        first: that key frame's number, for messages.
        beside: other streams, whose packets help to find jumps of the clock.
        timeline: counts the jumps of the clock, for a caller that wants to know.

    Raises:
        VideoError: FFmpeg meets damage; the message says at which frame, and how to read the frames before it.
    """
    number = first
    try:
        for frame in _frames(container, stream, beside, timeline or Timeline(container)):
            if since is not None and frame.pts is not None and frame.pts < since:
                continue
            if frame.is_corrupt:
                raise _Broken("pieces of the picture are missing")
            yield frame
            number += 1
    except (_Broken, load().error.FFmpegError) as error:
        raise damaged(path, number, reason(error)) from error


class _Broken(Exception):  # noqa: N818 - never leaves this file
    """Damage that is not an error of FFmpeg."""


def _frames(
    container: InputContainer, stream: VideoStream, beside: Sequence[Any], timeline: Timeline
) -> Iterator[VideoFrame]:
    """Yield every frame; at damage, the whole frames that the decoder still holds, and then the error."""
    options = {"err_detect": "explode"} if stream.codec_context.name in _EXPLODES else {}
    if options:
        stream.codec_context.options = options
    if only_logs := stream.codec_context.name in _ONLY_LOGS:
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
    packets = _packets(container, stream, beside, timeline)
    while True:
        try:
            with _complaints(only_logs):
                packet = next(packets, None)
                frames = packet.decode() if packet is not None else []
        except (_Broken, load().error.FFmpegError):
            yield from _drain(stream)
            raise
        if packet is None:
            return
        yield from frames


def _packets(
    container: InputContainer, stream: VideoStream, beside: Sequence[Any], timeline: Timeline
) -> Iterator[Packet[Any]]:
    """Yield the packets of `stream` from the first key frame on, on a clock without jumps."""
    started, held, jumps = False, list[Any](), 0
    for packet in container.demux(stream, *beside):
        timeline.correct(packet)
        # A recording that began midway opens with frames that depend on others never recorded.
        started = started or (packet.is_keyframe and packet.stream is stream)
        repeats = not packet.size and packet.dts is not None
        if packet.stream is not stream or not started or repeats:
            timeline.skipped += packet.stream is stream and not started
            continue
        # Where recordings are joined, the last packets look incomplete, because the next recording counts anew.
        if timeline.jumps > jumps:
            yield from held
            held, jumps = [], timeline.jumps
        if held or packet.is_corrupt:
            held.append(packet)
        else:
            yield packet
        if len(held) > (_JOINT if timeline.may_jump else 0):
            break
    if held:
        raise _Broken("a packet is incomplete")


@contextmanager
def _complaints(listen: bool) -> Iterator[None]:
    """Raise if FFmpeg logs an error in this thread meanwhile."""
    if not listen:
        yield
        return
    load()
    from av import logging

    level, skips = logging.get_level(), logging.get_skip_repeated()
    logging.set_skip_repeated(False)
    logging.set_level(logging.ERROR)
    try:
        with logging.Capture(local=True) as lines:
            yield
    finally:
        logging.set_level(level)
        logging.set_skip_repeated(skips)
    if lines:
        raise _Broken(lines[0][2].strip())


def _drain(stream: VideoStream) -> list[VideoFrame]:
    """Return the whole frames that the decoder's threads had ready when it met damage."""
    try:
        return [frame for frame in stream.codec_context.decode(None) if not frame.is_corrupt]
    except load().error.FFmpegError:
        return []


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
    stated = _stated_end(container, stream)
    missing = float(stated - end * base)
    # Half a second of grace: containers round, and guess the length of the last frame.
    if missing > max(0.5, 2 * float(step)):
        warnings.warn(
            f"{path}: its header states {missing:.2f} s more than came; if its end is missing, get a whole copy",
            stacklevel=2,
        )
    return bool(stated)


def _frame_bytes(stream: VideoStream) -> int:
    """Return the size of an uncompressed frame; 0 for compressed ones."""
    if stream.codec_context.name not in {"rawvideo", "wrapped_avframe"} or stream.codec_context.format is None:
        return 0
    components = stream.codec_context.format.components
    per_sample = max((c.bits + 7) // 8 for c in components)
    return sum(c.width * c.height * per_sample for c in components)


def _stated_end(container: InputContainer, stream: VideoStream) -> Fraction:
    """Return the end of the pictures in seconds, by the stream, the file, or Matroska's tag; 0 if none states it."""
    if stream.duration:
        return ((stream.start_time or 0) + stream.duration) * time_base(stream)
    if container.duration and len(container.streams) == 1:
        return Fraction((container.start_time or 0) + container.duration, 1_000_000)
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (Fraction(part) for part in parts)
    except ValueError:
        return Fraction(0)
    return hours * 3600 + minutes * 60 + seconds
