"""The sound: packets of every audio stream copied untouched, or encoded as AAC where the target cannot hold them."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import load, opened, reason
from shortcutv2v.video._clock import Timeline

if TYPE_CHECKING:
    from av.packet import Packet

__all__ = ["AudioCopy", "from_template"]

_AAC_RATES = {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}
_GAP = Fraction(1, 10)  # seconds
_AAC_LAYOUTS = {"mono", "stereo", "3.0", "4.0", "5.0", "5.1"}


class AudioCopy:
    """Reads the audio packets of one file and writes them to another, beside its video.

    It opens the file a second time, so that neither pictures nor sound pile up in memory while the other is read.

    Args:
        path: the source, for messages.
        file: the file with the sound.

    Attributes:
        begin: the time in the source, in seconds, that becomes 0 in the target.
        cut: whether to leave out the sound before `begin`.
        end: the time in the source before which to stop; None for the end.
        lost: sound that cannot be kept, in words.
        recoded: names of the codecs that became AAC.
    """

    def __init__(self, path: Path, file: Path) -> None:
        self._source, self._file = path, file
        self._stack = ExitStack()
        container, picture = self._stack.enter_context(opened(path, file))
        self._streams = [s for s in container.streams.audio if s.codec_context is not None]
        unknown = len(container.streams.audio) - len(self._streams)
        self.lost = [f"sound tracks of an unknown codec ({unknown})"] if unknown else []
        self.recoded: list[str] = []
        self._timeline = Timeline(container)
        # The pictures' packets are read too, because both show where the clock jumps.
        streams = [picture, *self._streams] if self._streams else []
        self._packets: Iterator[Packet[Any]] = container.demux(*streams) if streams else iter(())
        self._waiting: Packet[Any] | None = None
        self._tracks: dict[int, _Track] = {}
        self.begin, self.cut = Fraction(0), False
        self.end: Fraction | None = None

    def attach(self, output: Any, target: Path) -> None:
        """Add one stream to the container `output` for every audio stream of the source that can be kept."""
        for stream in self._streams:
            name = stream.codec_context.name
            if _can_hold(output.format.name, self._file, stream.index):
                self._tracks[stream.index] = _Track(output, from_template(output, stream))
            elif track := _Encoded.of(output, stream):
                self._tracks[stream.index] = track
                self.recoded.append(name)
            else:
                self.lost.append(f"{name} sound, which {target.suffix} cannot hold")
        for stream in self._streams:
            if stream.index in self._tracks:
                self._tracks[stream.index].added.metadata.update(stream.metadata)

    def write_until(self, output: Any, time: Fraction | None) -> None:
        """Write all packets that begin before `time` (seconds in the target); all that are left for None.

        Raises:
            VideoError: the source cannot be read, or the target cannot be written.
        """
        av = load()
        limit = self.end if time is None else time + self.begin
        try:
            while (packet := self._next()) is not None:
                if limit is not None and _time(packet) >= limit:
                    self._waiting = packet
                    break
                if _time(packet) >= self.begin or not self.cut:
                    self._tracks[packet.stream_index].write(packet, self.begin)
            if time is None:
                for track in self._tracks.values():
                    track.end(self.begin)
        except av.error.FFmpegError as error:
            way = "leave it out with audio=False (--no-audio)"
            raise VideoError(f"{self._source}: its sound cannot be copied ({reason(error)}); {way}") from error

    def _next(self) -> Packet[Any] | None:
        packet, self._waiting = self._waiting, None
        while packet is None:
            packet = next(self._packets, None)
            if packet is None:
                return None
            self._timeline.correct(packet)
            # The demuxer ends each stream with an empty packet, which decoders want and containers do not.
            if packet.stream_index not in self._tracks or not packet.size or packet.dts is None:
                packet = None
        return packet

    def summary(self) -> list[str]:
        """Return what was not kept of the sound, in words."""
        damaged = sum(track.damaged for track in self._tracks.values())
        return self.lost + ([f"damaged pieces of sound ({damaged})"] if damaged else [])

    def close(self) -> None:
        """Close the source."""
        self._stack.close()


class _Track:
    """A stream of the target, and how packets of the source get into it: as they are."""

    def __init__(self, output: Any, added: Any) -> None:
        self._output, self.added = output, added
        self.damaged = 0
        self._last: int | None = None

    def write(self, packet: Packet[Any], begin: Fraction) -> None:
        """Write a packet of the source, so that `begin` becomes 0."""
        ticks = round(begin / Fraction(packet.time_base))
        assert packet.dts is not None  # noqa: S101 - `AudioCopy` skips the others
        dts = packet.dts - ticks
        if self._last is not None and dts <= self._last:
            dts = self._last + 1  # no container takes stamps that do not rise
        pts = None if packet.pts is None else max(packet.pts - ticks, dts)
        self._last = packet.dts = dts
        packet.pts = pts
        packet.stream = self.added
        try:
            self._output.mux(packet)
        except load().error.FFmpegError as error:
            if error.errno != errno.EINVAL and not isinstance(error, load().error.InvalidDataError):
                raise
            self.damaged += 1

    def end(self, begin: Fraction) -> None:
        """Finish the stream."""


class _Encoded(_Track):
    """As `_Track`, but the sound is decoded and encoded as AAC."""

    def __init__(self, output: Any, stream: Any) -> None:
        context = stream.codec_context
        rate = context.sample_rate if context.sample_rate in _AAC_RATES else 48000
        layout = (
            context.layout.name
            if context.layout.name in _AAC_LAYOUTS
            else "mono"
            if context.channels == 1
            else "stereo"
        )
        self._resampler = load().AudioResampler("fltp", layout, rate, 1024)
        super().__init__(output, output.add_stream("aac", rate=rate, layout=layout))
        self.added.codec_context.bit_rate = 96_000 * len(load().AudioLayout(layout).channels)
        self._source = context
        self._next: Fraction | None = None

    @staticmethod
    def of(output: Any, stream: Any) -> _Encoded | None:
        """Return the track, or None if the sound cannot be decoded or encoded."""
        if " channels (" in stream.codec_context.layout.name:  # in an order of its own, on which PyAV's frames crash
            return None
        try:
            return _Encoded(output, stream)
        except (ValueError, load().error.FFmpegError):
            return None

    def write(self, packet: Packet[Any], begin: Fraction) -> None:
        """Write the sound of a packet of the source, so that `begin` becomes 0."""
        try:
            frames = packet.decode()
        except load().error.FFmpegError:
            self.damaged += 1
            return
        self._encode(frames, begin)

    def _encode(self, frames: list[Any], begin: Fraction) -> None:
        for frame in frames:
            # Count samples: stamps of frames that share a packet are alike in some formats. Only a gap sets them anew.
            time = None if frame.pts is None else frame.pts * Fraction(frame.time_base) - begin
            if self._next is None or (time is not None and time > self._next + _GAP):
                self._next = time or Fraction(0)
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = round(self._next * frame.sample_rate)
            self._next += Fraction(frame.samples, frame.sample_rate)
            for part in self._resampler.resample(frame):
                self._output.mux(self.added.encode(part))

    def end(self, begin: Fraction) -> None:
        """Encode what decoder and encoder still hold."""
        try:
            self._encode(self._source.decode(None), begin)
        except load().error.FFmpegError:
            self.damaged += 1
        for part in self._resampler.resample(None):
            self._output.mux(self.added.encode(part))
        self._output.mux(self.added.encode(None))


def _can_hold(kind: str, file: Path, index: int) -> bool:
    """Return whether a container takes a stream of `file` as it is; only writing a whole file shows it."""
    av = load()
    try:
        with opened(file) as (source, _), av.open(io.BytesIO(), "w", format=kind) as trial:
            stream = source.streams[index]
            added = from_template(trial, stream)
            trial.start_encoding()
            packet = next((p for p in source.demux(stream) if p.size and p.dts is not None), None)
            if packet is not None:
                packet.pts = packet.dts = 0
                packet.stream = added
                trial.mux(packet)
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def from_template(output: Any, stream: Any) -> Any:
    """Return `add_stream_from_template`, which older releases of PyAV spell `add_stream(template=)`."""
    if hasattr(output, "add_stream_from_template"):
        return output.add_stream_from_template(stream)
    return output.add_stream(template=stream)


def _time(packet: Packet[Any]) -> Fraction:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return Fraction(0) if stamp is None else stamp * Fraction(packet.time_base)
