"""Films in pieces: each is encoded apart, and all are joined without encoding again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Any

from shortcutv2v.errors import VideoError
from shortcutv2v.video import clip as clips
from shortcutv2v.video._av import PathLike, load, opened, reason
from shortcutv2v.video._part import FilePart
from shortcutv2v.video.audio import AudioCopy, from_template
from shortcutv2v.video.convert import Ahead, warn_of
from shortcutv2v.video.frames import Frames
from shortcutv2v.video.picture import Size
from shortcutv2v.video.write import CONTAINER_OPTIONS, WRITABLE, VideoWriter

__all__ = ["Pieces", "check_piece", "join"]


class Pieces:
    """A film that is translated in pieces; it stays open, because to open it reads all of its packets.

    Args:
        source: the film.
        size: see `open`.
        tone_map: see `open`.

    Raises:
        VideoError: the film cannot be read.
    """

    def __init__(self, source: PathLike, *, size: Size = None, tone_map: bool = False) -> None:
        self._clip = clips.open(source, size=size, tone_map=tone_map)
        self._frames = Frames(source, size=size, cache_bytes=0, tone_map=tone_map)

    def write(self, target: Path, step: Ahead, start: int, times: Sequence[Fraction], crf: float = 16) -> None:
        """Translate some frames into an `.mp4` of their own, and check by decoding that it holds all of them.

        Args:
            target: the piece.
            step: turns frames into pictures, see `convert`.
            start: number of the first frame.
            times: time stamp of every frame, in seconds.
            crf: see `create`.

        Raises:
            VideoError: the film cannot be read, or the piece cannot be written.
        """
        frames, clip = self._frames, self._clip
        if start + len(times) > len(frames):
            raise VideoError(
                f"{clip.path}: has {len(frames)} frames, {start + len(times)} were planned: it has changed"
            )
        pictures = step.play(frames[start + number] for number in range(len(times)))
        how: dict[str, Any] = {"pixel_aspect": clip.pixel_aspect, "colour": clip.colour, "exact": True}
        with VideoWriter(target, clip.rate, clip.time_base, crf, "medium", **how) as out:
            for picture, time in zip(pictures, times, strict=True):
                out.write(picture, time - times[0])
        check_piece(target, len(times))

    def close(self) -> None:
        """Close the film."""
        self._frames.close()


def check_piece(piece: Path, count: int) -> None:
    """Decode a piece.

    Raises:
        VideoError: it does not hold `count` frames.
    """
    av = load()
    try:
        with opened(piece) as (container, stream):
            stream.thread_type = "AUTO"
            found = sum(1 for _ in container.decode(stream))
    except av.error.FFmpegError as error:
        raise VideoError(f"{piece}: cannot be decoded ({reason(error)})") from error
    if found != count:
        raise VideoError(f"{piece}: holds {found} frames, {count} were written; is the disk full, or broken?")


def join(
    pieces: Sequence[Path],
    target: Path,
    source: Path,
    ticks: Sequence[int],
    base: Fraction,
    *,
    begin: Fraction = Fraction(0),
    last: Fraction = Fraction(0),
    audio: bool = True,
    notes: Sequence[str] = (),
) -> None:
    """Join pieces in order, without encoding again; sound and time stamps are those of the source.

    Args:
        pieces: made by `Pieces.write`.
        target: the film; it gets its name only when it is complete.
        source: where the sound comes from.
        ticks: time stamp of every frame, in units of `base` seconds.
        base: seconds per tick.
        begin: the time of the source, in seconds, that becomes 0.
        last: how long the last frame is shown, in seconds; 0 if unknown.
        audio: keep the sound.
        notes: what was not kept besides, for the warning at the end.

    Raises:
        VideoError: the pieces do not hold one frame for every time stamp, or do not fit together; or the target cannot
            be written.
    """
    av = load()
    part = FilePart(target)
    with ExitStack() as stack:
        stack.callback(part.remove)
        kind = WRITABLE[target.suffix.lower()]
        sound = stack.enter_context(closing(AudioCopy(source, source))) if audio and source.is_file() else None
        try:
            container = stack.enter_context(
                av.open(f"file:{part.path}", "w", format=kind, options=CONTAINER_OPTIONS[kind])
            )
            _copy_all(container, pieces, target, ticks, base, sound, begin, last)
            container.close()
        except av.error.FFmpegError as error:
            raise part.refused(error) from error
        part.finish()
    warn_of(target, list(notes), sound)


def _copy_all(
    container: Any,
    pieces: Sequence[Path],
    target: Path,
    ticks: Sequence[int],
    base: Fraction,
    sound: AudioCopy | None,
    begin: Fraction,
    last: Fraction,
) -> None:
    """Copy the packets of all pieces, and the sound between them."""
    delay = max((_delay(piece) for piece in pieces), default=0)
    step = max(1, ticks[1] - ticks[0] if len(ticks) > 1 else 1)
    ends = [*ticks[1:], ticks[-1] + max(1, round(last / base) or step)]
    stream: Any = None
    first = 0
    for piece in pieces:
        with opened(piece) as (source, picture):
            if stream is None:
                stream, extra = from_template(container, picture), picture.codec_context.extradata
                stream.time_base = base
                if sound is not None:
                    sound.begin = begin
                    sound.attach(container, target)
            elif picture.codec_context.extradata != extra:
                raise VideoError(f"{piece}: was encoded in another way than the pieces before it; remove it")
            places = {stamp: first + place for place, stamp in enumerate(sorted(_stamps(piece)))}
            packets: Any = (packet for packet in source.demux(picture) if packet.size)
            for number, packet in enumerate(packets, first):
                place, before = places[packet.pts], number - delay
                packet.duration, packet.time_base = ends[place] - ticks[place], base
                packet.pts, packet.stream = ticks[place], stream
                packet.dts = ticks[before] if before >= 0 else ticks[0] + before * step
                if sound is not None:
                    sound.write_until(container, ticks[max(0, before)] * base)
                container.mux(packet)
            first += len(places)
    if first != len(ticks):
        raise VideoError(f"{target}: the pieces hold {first} frames, {len(ticks)} were planned")
    if sound is not None:
        sound.write_until(container, None)


def _delay(piece: Path) -> int:
    """Return by how many frames decoding runs ahead of showing."""
    stamps = _stamps(piece)
    shown = {stamp: place for place, stamp in enumerate(sorted(stamps))}
    return max(number - shown[stamp] for number, stamp in enumerate(stamps))


def _stamps(piece: Path) -> list[int]:
    """Return the time stamps of a piece's packets, in the order of the file."""
    with opened(piece) as (container, stream):
        return [packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None]
