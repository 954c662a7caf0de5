"""The base of clips: one frame in memory at a time, whatever the length."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video._shape import SDR, Colour
from shortcutv2v.video.picture import ToTensor

__all__ = ["Clip"]


class Clip(AbstractContextManager["Clip"], ABC):
    """A video file or a folder of frames. Iterating yields uint8 tensors of shape (3, H, W), RGB, as often as you like.

    Attributes:
        path: where it was opened.
        size: (H, W) of the frames that come out, after rotation and resizing.
        rate: frames per second; the average if the rate varies.
        frames: how many frames will come, if the container says so; else None.
        time_base: the unit, in seconds, of which every time stamp is a whole multiple.
        pixel_aspect: width of a pixel by its height; 1 unless the video is anamorphic and read at its own shape.
        begin: the time, in seconds, at which the file begins; None if it states no times.
        colour: how the pixel values are to be shown.
        lost: kinds of content in the file that frames and sound do not carry, such as subtitles.
        skipped: how many pictures before the first key frame were left out, because they depend on others.
        sounds: how many sound tracks the file has.
        last: how long the last frame read is shown, in seconds; 0 if the file does not say.
        ends: whether the file says where it ends, so that a missing end is noticed; known after reading it.
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    time_base: Fraction
    pixel_aspect: Fraction = Fraction(1)
    begin: Fraction | None = Fraction(0)
    colour: Colour = SDR
    sounds: int = 0
    skipped: int = 0
    last: Fraction = Fraction(0)
    ends: bool = True
    _total: int | None = None
    """Number of frames in the whole clip, whatever the range."""

    def __init__(self, path: Path, convert: ToTensor, start: int, stop: int | None) -> None:
        if start < 0 or (stop is not None and stop <= start):
            raise VideoError(f"{path}: start={start}, stop={stop} is no frame range; expected 0 <= start < stop")
        self.path = path
        self.start, self.stop = start, stop
        self.lost: list[str] = []
        self._convert = convert
        # Weak: an abandoned iteration must be freed at once, with its decoder threads. The garbage collector might
        # first run in a forked worker, and wait there for threads that stayed in the parent.
        self._running: weakref.WeakSet[Generator[tuple[Fraction, Tensor]]] = weakref.WeakSet()

    @property
    def frames(self) -> int | None:
        """Number of frames that will come, if the container says so; else None."""
        if self._total is None:
            return None
        return max(0, min(self._total, self._total if self.stop is None else self.stop) - self.start)

    def timed(self) -> Iterator[tuple[Fraction, Tensor]]:
        """Yield (time, frame): seconds as an exact fraction, strictly rising, and uint8 (3, H, W).

        Raises:
            VideoError: a frame cannot be decoded or has another size, or the clip ends before it should.
        """
        run = self._timed()
        self._running.add(run)
        return run

    def _timed(self) -> Generator[tuple[Fraction, Tensor]]:
        number = -1
        for number, (time, get) in enumerate(self._decode()):
            if number >= self.start:
                yield time, get()
            if self.stop is not None and number + 1 >= self.stop:
                return
        if number < self.start:
            raise VideoError(f"{self.path}: has only {number + 1} frames; start={self.start} lies after them")

    @property
    def transparent(self) -> bool:
        """True if a frame so far had pixels that are not opaque; their hidden colours come out."""
        return self._convert.transparent

    @property
    def tone_mapped(self) -> bool:
        """True if HDR values are mapped to BT.709."""
        return self._convert.tone_map

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the frames alone."""
        return (frame for _, frame in self.timed())

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every running iteration and close its file; the clip can be iterated anew."""
        for run in list(self._running):
            run.close()
        self._running.clear()

    @abstractmethod
    def _decode(self) -> Iterator[tuple[Fraction, Callable[[], Tensor]]]:
        """Yield the time of every frame and a function that converts it: frames before the range are not converted."""
