"""Time stamps: repaired over a whole container as FFmpeg's program does, and made to rise from frame to frame."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Clock", "Timeline", "begin_of", "rate", "stores_no_stamps", "time_base"]

_NO_STAMPS, _CLOCK_MAY_JUMP = 0x80, 0x200  # AVFMT_NOTIMESTAMPS and AVFMT_TS_DISCONT of libavformat/avformat.h


def rate(container: InputContainer, stream: VideoStream) -> Fraction:
    """Return frames per second: the average, or FFmpeg's guess, or 25 if there is neither."""
    rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    if int(container.format.flags) & _NO_STAMPS:
        rates.insert(0, stream.guessed_rate)  # the average is made up there, the guess comes from the codec
    return next((Fraction(found) for found in rates if found), Fraction(25))


def time_base(stream: VideoStream) -> Fraction:
    """Return the seconds per tick of the stream's time stamps."""
    return Fraction(stream.time_base) if stream.time_base else Fraction(1, 90_000)


def stores_no_stamps(container: InputContainer) -> bool:
    """Return whether the container keeps frames in order, but no time stamps."""
    return container.format.name == "avi"


def begin_of(container: InputContainer, streams: list[Any]) -> Fraction | None:
    """Return the time at which the file begins, in seconds, as FFmpeg's program finds it; None if it states none.

    Args:
        container: the open file.
        streams: the streams in use. If clocks begin anywhere (MPEG), the first of them counts.
    """
    start: Any = container.start_time
    if start is None:
        return None
    stated = Fraction(start, 1_000_000)
    if not int(container.format.flags) & _CLOCK_MAY_JUMP:
        return max(stated, Fraction(0))  # AAC sound begins a moment before 0
    starts = [s.start_time * Fraction(s.time_base) for s in streams if s.start_time is not None and s.time_base]
    return max(stated, min(starts)) if starts else stated


class Timeline:
    """Repairs the clock of a container that jumps, packet by packet, as FFmpeg's program does.

    Joined recordings begin again at an earlier time. Broadcast clocks jump. The packets that follow a jump are moved so
    that they continue where the ones before ended. All streams move alike, but each from its own packet on: where
    streams are interleaved, some packets from before the jump come after the first one that follows it.

    Attributes:
        may_jump: whether the format is known for clocks that jump forward.
        lost: how many packets between others became no picture.
        skipped: how many packets came before the first key frame, so that they cannot be decoded.
        end: the byte at which the last packet ended.
    """

    def __init__(self, container: InputContainer) -> None:
        self.may_jump = bool(int(container.format.flags) & _CLOCK_MAY_JUMP)
        self.skipped = self.lost = self.end = 0
        self._shifts = [Fraction(0)]  # the repair after each jump
        self._seen: dict[int, tuple[int, Fraction, Fraction]] = {}  # of a stream: its repair, last and expected time

    @property
    def jumps(self) -> int:
        """Number of jumps that were repaired so far."""
        return len(self._shifts) - 1

    def correct(self, packet: Packet[Any]) -> None:
        """Move the time stamps of the next packet of any stream to where they belong."""
        self.end = packet.pos + packet.size if packet.pos is not None and packet.size else self.end
        if packet.dts is None or not packet.time_base:
            return
        base = Fraction(packet.time_base)
        place, last, expected = self._seen.get(packet.stream_index, (self.jumps, None, Fraction(0)))
        time = packet.dts * base + self._shifts[place]
        if last is not None and self._jumps(time, last, expected):
            place, time = self.jumps, packet.dts * base + self._shifts[-1]  # another stream may have jumped before
            if self._jumps(time, last, expected):
                self._shifts.append(expected - packet.dts * base)
                place, time = self.jumps, expected
        self._seen[packet.stream_index] = place, time, time + (packet.duration or 0) * base
        if self._shifts[place]:
            ticks = round(self._shifts[place] / base)
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += ticks

    def _jumps(self, time: Fraction, last: Fraction, expected: Fraction) -> bool:
        return time + Fraction(1, 10) < last or (self.may_jump and abs(time - expected) > 10)


class Clock:
    """Gives decoded frames time stamps in whole ticks that always rise.

    A missing stamp continues at the stated rate. A stamp that does not rise (some broadcast recordings) moves to the
    next tick, because no container accepts it and no frame may be dropped. All others pass unchanged, except in AVI
    files. These store an order and no time stamps, so FFmpeg numbers their packets, empty ones too, in the order of
    decoding. With B-frames this order is not the order of display.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._step = max(1, round(1 / (time_base(stream) * rate(container, stream))))
        self._by_order = stores_no_stamps(container)
        self._offset: int | None = None
        self._last: int | None = None
        self._faulty_pts = self._faulty_dts = 0
        self._last_pts = self._last_dts = -(2**63)

    def __call__(self, frame: VideoFrame) -> int:
        """Return the tick of the next frame."""
        stamp = self._ordered(frame) if self._by_order else self._best(frame)
        if self._last is None:
            self._last = stamp or 0
        else:
            self._last = self._last + self._step if stamp is None else max(stamp, self._last + 1)
        return self._last

    def _ordered(self, frame: VideoFrame) -> int | None:
        """Return the decoder's place in the file, less the frames that it held back at the start."""
        if frame.dts is None:
            return None
        if self._offset is None:
            self._offset = frame.dts
        return frame.dts - self._offset

    def _best(self, frame: VideoFrame) -> int | None:
        """Return the presentation or the decoding stamp, whichever has risen more reliably (FFmpeg's own rule)."""
        pts, dts = frame.pts, frame.dts
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        return pts if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts) else dts
