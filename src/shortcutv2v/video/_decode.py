"""Decoding that notices damage, also where FFmpeg only logs it or keeps it to itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcutv2v.video._av import load, reason
from shortcutv2v.video._clock import Timeline
from shortcutv2v.video._stream import damaged

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["ONE_PER_PACKET", "decode", "drain"]

# Codecs that paint over damage without an error: some have an option against it, of the others only FFmpeg's log says
# so. Their threads must not log, see `load`, so they run in one.
_EXPLODES = {"mjpeg", "mjpegb", "ljpeg", "png", "apng", "tiff"}
_JOINT = 5  # packets between an incomplete one and a jump of the clock, at most, where two recordings are joined
# fmt: off
_ONLY_LOGS = {
    "gif", "theora", "ffv1", "utvideo", "dvvideo", "wmv1", "wmv2", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "mpeg4",
    "h263",
}
# fmt: on
# Codecs of which one packet is one shown frame, so that packets can be counted instead of decoded. Not vp8, vp9, av1:
# some of their packets show nothing.
_MOST_EARLY = 500  # packets to wait for a key frame
ONE_PER_PACKET = {"h264", "hevc", "mpeg4", "mjpeg", "ffv1", "prores", "dnxhd", "png", "rawvideo"}


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
    broken = (_Broken, load().error.FFmpegError)  # now: when Python ends, it closes generators and imports nothing more
    try:
        for frame in _frames(container, stream, beside, timeline or Timeline(container)):
            if since is not None and frame.pts is not None and frame.pts < since:
                continue
            if frame.is_corrupt:
                raise _Broken("pieces of the picture are missing")
            yield frame
            number += 1
    except broken as error:
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
    missing = _Missing(stream)
    while True:
        try:
            with _complaints(only_logs):
                packet = next(packets, None)
                frames = packet.decode() if packet is not None else []
        except (_Broken, load().error.FFmpegError):
            yield from drain(stream)
            raise
        if packet is None:
            timeline.lost += missing.among_shown()
            return
        missing.update(packet, frames)
        yield from frames


def _packets(
    container: InputContainer, stream: VideoStream, beside: Sequence[Any], timeline: Timeline
) -> Iterator[Packet[Any]]:
    """Yield the packets of `stream` from the first key frame on, on a clock without jumps."""
    held, jumps = list[Any](), 0
    for packet in _from_key(container, stream, beside, timeline):
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


def _from_key(
    container: InputContainer, stream: VideoStream, beside: Sequence[Any], timeline: Timeline
) -> Iterator[Packet[Any]]:
    """Yield the packets of `stream` from the first key frame on; all if none is marked as one."""
    early: list[Any] | None = []  # a recording that began midway opens with frames that depend on others never recorded
    for packet in container.demux(stream, *beside):
        timeline.correct(packet)
        if packet.stream is not stream or (not packet.size and packet.dts is not None):  # empty: the picture stays
            continue
        if early is not None:
            early.append(packet)
            if packet.is_keyframe and packet.size:
                timeline.skipped = len(early) - 1
                early = early[-1:]
            elif packet.size and len(early) < _MOST_EARLY:
                continue
            yield from early
            early = None
        else:
            yield packet


class _Missing:
    """Finds packets that became no picture: decoders with several threads hide errors in the last ones."""

    def __init__(self, stream: VideoStream) -> None:
        self._name = stream.codec_context.name
        self._waiting: set[int] = set()
        self._shown: tuple[int, int] | None = None
        # AVI stores no stamps, and packets of MPEG-4 may say that nothing changes.
        self._known = stream.container.format.name != "avi" and self._name not in {"mpeg4", "theora"}

    def update(self, packet: Packet[Any], frames: list[VideoFrame]) -> None:
        """Take note of a packet, and of the frames that came when the decoder got it."""
        if packet.size and packet.pts is not None and not packet.is_discard:
            self._waiting.add(packet.pts)
        for frame in frames:
            if frame.pts is None:
                self._known = False
                return
            self._waiting.discard(frame.pts)
            self._shown = (self._shown or (frame.pts, 0))[0], frame.pts

    def among_shown(self) -> int:
        """Return how many pictures are missing between others.

        Raises:
            _Broken: the last ones are missing.
        """
        if not self._known or self._shown is None:
            return 0
        if any(stamp > self._shown[1] for stamp in self._waiting):
            raise _Broken("its last pictures cannot be decoded")
        return sum(stamp > self._shown[0] for stamp in self._waiting) if self._name in ONE_PER_PACKET else 0


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


def drain(stream: VideoStream) -> list[VideoFrame]:
    """Return the whole frames that the decoder's threads had ready when it met damage."""
    try:
        return [frame for frame in stream.codec_context.decode(None) if not frame.is_corrupt]
    except load().error.FFmpegError:
        return []
