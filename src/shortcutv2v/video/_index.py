"""The frames of a video, and the places from which each can be decoded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shortcutv2v.video import _stream
from shortcutv2v.video._av import load, opened, reason
from shortcutv2v.video._clock import Timeline, stores_no_stamps
from shortcutv2v.video._decode import ONE_PER_PACKET, decode

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.stream import VideoStream

__all__ = ["Index", "index"]


@dataclass(frozen=True)
class Index:
    """The frames of a clip in display order.

    Attributes:
        stamps: time stamp of every frame, rising, in ticks of the stream.
        keys: numbers of the frames at which decoding can begin; the first is 0.
        seekable: whether the time stamps can be sought; if not, `stamps` are frame numbers and decoding begins at 0.
    """

    stamps: list[int]
    keys: list[int]
    seekable: bool

    @staticmethod
    def plain(length: int) -> Index:
        """Return the index of a clip that cannot be sought by time."""
        return Index(list(range(length)), [0], seekable=False)


def index(path: Path) -> Index:
    """Read all packets of a video, decode them only if need be, and list its frames.

    Raises:
        VideoError: no readable video, damaged, truncated or empty.
    """
    with opened(path) as (container, stream):
        promise = _stream.promised(container, stream)
        countable = stream.codec_context.name in ONE_PER_PACKET and not stores_no_stamps(container)
        found = _from_packets(path, container, stream) if countable else None
    with opened(path) as (container, stream):
        last = None
        if found is None:
            found, last = _from_frames(path, container, stream)
        if not found.stamps:
            raise _stream.no_frames(path, promise)
        end = found.stamps[-1] if found.seekable else last
        _stream.check_complete(path, path, (container, stream), promise, len(found.stamps), end)
    return found


def _from_packets(path: Path, container: InputContainer, stream: VideoStream) -> Index | None:
    """Return the index from the packets; None if they do not determine it."""
    av = load()
    stamps: dict[int, bool] = {}
    timeline, started = Timeline(container), False
    try:
        for packet in container.demux(stream):
            timeline.correct(packet)
            started = started or packet.is_keyframe
            if timeline.jumps:
                return None
            if not packet.size or packet.is_discard or not started:
                continue
            if packet.pts is None or packet.pts in stamps:
                return None
            if packet.is_corrupt:
                if timeline.may_jump:
                    return None
                raise _stream.damaged(path, len(stamps), "a packet is incomplete")
            stamps[packet.pts] = packet.is_keyframe
    except av.error.FFmpegError as error:
        raise _stream.damaged(path, len(stamps), reason(error)) from error
    ordered = sorted(stamps)
    if not ordered or not stamps[ordered[0]]:
        return None  # Recorded from the middle: only decoding shows how many of the first frames can be decoded.
    return Index(ordered, [i for i, stamp in enumerate(ordered) if stamps[stamp]], seekable=True)


def _from_frames(path: Path, container: InputContainer, stream: VideoStream) -> tuple[Index, int | None]:
    """Return the index from decoding the whole video, and the last frame's time stamp."""
    stream.thread_type = "AUTO"
    stamps: list[int | None] = []
    keys: list[int] = []
    timeline = Timeline(container)
    for frame in decode(path, container, stream, timeline=timeline):
        if frame.key_frame:
            keys.append(len(stamps))
        stamps.append(frame.pts)
    known = [stamp for stamp in stamps if stamp is not None]
    rising = all(a < b for a, b in itertools.pairwise(known))
    if len(known) < len(stamps) or not rising or timeline.jumps or keys[:1] != [0]:
        return Index.plain(len(stamps)), stamps[-1] if stamps else None
    return Index(known, keys, seekable=True), known[-1]
