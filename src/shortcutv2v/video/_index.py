"""Which frames a video has, and from where each can be decoded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shortcutv2v.video import _stream
from shortcutv2v.video._av import load, opened, reason

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.stream import VideoStream

__all__ = ["Index", "index"]

# Codecs of which one packet is one shown frame, so that packets can be counted instead of decoded. Not vp8, vp9, av1:
# some of their packets show nothing.
_ONE_PER_PACKET = {"h264", "hevc", "mpeg4", "mjpeg", "ffv1", "prores", "dnxhd", "png", "rawvideo"}


@dataclass(frozen=True)
class Index:
    """The frames of a clip in display order.

    Attributes:
        stamps: time stamp of every frame, rising, in ticks of the stream.
        keys: numbers of the frames at which decoding can begin; the first is 0.
        seekable: whether the time stamps can be sought; if not, `stamps` are mere numbers and decoding begins at 0.
    """

    stamps: list[int]
    keys: list[int]
    seekable: bool

    @staticmethod
    def plain(length: int) -> Index:
        """For a clip that cannot be sought by time."""
        return Index(list(range(length)), [0], seekable=False)


def index(path: Path) -> Index:
    """Read all packets of a video, mostly without decoding them, and list its frames.

    Raises:
        VideoError: no readable video, damaged, truncated or empty.
    """
    with opened(path) as (container, stream):
        promise = _stream.promised(container, stream)
        countable = stream.codec_context.name in _ONE_PER_PACKET and not _stream.stores_no_stamps(container)
        found = _from_packets(path, container, stream) if countable else None
    with opened(path) as (container, stream):
        found = found or _from_frames(path, container, stream)
        if not found.stamps:
            raise _stream.nothing_came(path, promise)
        span = (found.stamps[0], found.stamps[-1]) if found.seekable else None
        _stream.check_complete(path, stream, promise, len(found.stamps), span)
    return found


def _from_packets(path: Path, container: InputContainer, stream: VideoStream) -> Index | None:
    """The index as the packets tell it; None when they do not tell enough."""
    av = load()
    stamps: dict[int, bool] = {}
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard or not (stamps or packet.is_keyframe):
                continue
            if packet.pts is None or packet.pts in stamps:
                return None
            if packet.is_corrupt:
                raise _stream.damaged(path, len(stamps), "a packet is incomplete")
            stamps[packet.pts] = packet.is_keyframe
    except av.error.FFmpegError as error:
        raise _stream.damaged(path, len(stamps), reason(error)) from error
    ordered = sorted(stamps)
    if ordered and not stamps[ordered[0]]:
        return None  # Recorded from the middle: how many of the first frames can be decoded, only decoding tells.
    return Index(ordered, [i for i, stamp in enumerate(ordered) if stamps[stamp]], seekable=True)


def _from_frames(path: Path, container: InputContainer, stream: VideoStream) -> Index:
    """The index as decoding the whole video tells it."""
    stream.thread_type = "AUTO"
    stamps: list[int | None] = []
    keys: list[int] = []
    for frame in _stream.decode(path, container, stream):
        if frame.key_frame:
            keys.append(len(stamps))
        stamps.append(frame.pts)
    known = [stamp for stamp in stamps if stamp is not None]
    rising = all(a < b for a, b in itertools.pairwise(known))
    if len(known) < len(stamps) or not rising or keys[:1] != [0]:
        return Index.plain(len(stamps))
    return Index(known, keys, seekable=True)
