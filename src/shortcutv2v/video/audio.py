"""Copying the sound: the packets of every audio stream, untouched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import load, opened, reason

if TYPE_CHECKING:
    from av.packet import Packet

__all__ = ["AudioCopy"]


class AudioCopy:
    """Reads the audio packets of one file and writes them to another, beside its video.

    It opens the file a second time, for the audio alone, so that video and sound need not be read in one step and
    neither piles up in memory while the other is busy.

    Args:
        source: the file with the sound.

    Attributes:
        begin: the time in the source, in seconds, from which to copy; it becomes 0 in the target.
        end: the time in the source before which to stop; None for the end.
    """

    def __init__(self, source: Path) -> None:
        self._source = source
        self._stack = ExitStack()
        container, _ = self._stack.enter_context(opened(source))
        self._streams = list(container.streams.audio)
        self._packets: Iterator[Packet[Any]] = container.demux(*self._streams) if self._streams else iter(())
        self._waiting: Packet[Any] | None = None
        self._outputs: dict[int, Any] = {}
        self.begin = Fraction(0)
        self.end: Fraction | None = None

    def attach(self, output: Any, target: Path) -> None:
        """Add one stream to the container `output` for every audio stream of the source.

        Raises:
            VideoError: the container cannot hold the sound's codec.
        """
        for stream in self._streams:
            try:
                added = _from_template(output, stream)
            except ValueError as error:
                raise VideoError(
                    f"{target}: {target.suffix} cannot hold the {stream.codec_context.name} sound of {self._source}; "
                    "write a .mkv file, or leave the sound out with audio=False"
                ) from error
            added.metadata.update(stream.metadata)
            self._outputs[stream.index] = added

    def write_until(self, output: Any, time: Fraction | None) -> None:
        """Write all packets that begin before `time` (seconds in the target); all that are left for None.

        Raises:
            VideoError: the sound is damaged, or cannot be written.
        """
        av = load()
        limit = self.end if time is None else time + self.begin
        try:
            while (packet := self._next()) is not None:
                if limit is not None and _begins(packet) >= limit:
                    self._waiting = packet
                    return
                if _begins(packet) >= self.begin or not self.begin:
                    self._write(output, packet)
        except av.error.FFmpegError as error:
            raise VideoError(
                f"{self._source}: its sound cannot be copied ({reason(error)}); try audio=False"
            ) from error

    def _next(self) -> Packet[Any] | None:
        if self._waiting is not None:
            packet, self._waiting = self._waiting, None
            return packet
        # The demuxer ends each stream with an empty packet, which decoders want and containers do not.
        return next((p for p in self._packets if p.size and p.dts is not None), None)

    def _write(self, output: Any, packet: Packet[Any]) -> None:
        if self.begin:
            ticks = round(self.begin / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts - ticks
            packet.pts = None if packet.pts is None else packet.pts - ticks
        packet.stream = self._outputs[packet.stream_index]
        output.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._stack.close()


def _from_template(output: Any, stream: Any) -> Any:
    """`add_stream_from_template`, which older releases of PyAV spell `add_stream(template=)`."""
    if hasattr(output, "add_stream_from_template"):
        return output.add_stream_from_template(stream)
    return output.add_stream(template=stream)


def _begins(packet: Packet[Any]) -> Fraction:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return Fraction(0) if stamp is None else stamp * Fraction(packet.time_base)
