"""Live sources: addresses that FFmpeg opens, connected again when they break off; and files at their own pace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video import _clock
from shortcutv2v.video._av import load, reason
from shortcutv2v.video._decode import drain
from shortcutv2v.video.base import Clip
from shortcutv2v.video.picture import Size, ToTensor

__all__ = ["connect", "paced"]

_PATIENCE = 5.0
"""Seconds without a byte after which a connection counts as broken."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_HAS_END = ("http:", "https:", "file:")
"""Addresses whose end is the end; others are connected again there, too."""


def paced(clip: Clip) -> Iterator[Tensor]:
    """Yield the frames of a clip when they are due, as a camera would."""
    begun: float | None = None
    for stamp, frame in clip.timed():
        now = time.monotonic()
        begun = now - float(stamp) if begun is None else begun
        time.sleep(max(0.0, begun + float(stamp) - now))
        yield frame


def connect(address: str, *, size: Size = None, attempts: int = 5) -> tuple[Fraction, Iterator[Tensor]]:
    """Open a live source.

    Args:
        address: whatever FFmpeg opens, such as "rtsp://camera/1" or "udp://:5000"; or "camera:0", by OpenCV.
        size: see `open`. Frames of another size, which may come after a new connection, are scaled to the first one's.
        attempts: connections in a row that may bring no frame; between them it waits, longer each time.

    Returns:
        The frames per second that the source states, and its frames: uint8 (3, H, W) each, as they come.

    Raises:
        VideoError: no connection brought a frame, or the source breaks off and none brings one any more.
    """
    kind, _, number = address.partition(":")
    frames = _camera(address, int(number), ToTensor(size)) if kind == "camera" and number.isdecimal() else None
    found = _frames(address, size, attempts) if frames is None else frames
    return next(found), found


def _frames(address: str, size: Size, attempts: int) -> Iterator[Any]:
    """Yield the frame rate, and then the frames of one connection after the other."""
    av = load()
    convert, failures, told = ToTensor(size), 0, False
    while True:
        why = "it ended"
        try:
            with _opened(address) as container:
                stream = container.streams.video[0]
                for frame in _decoded(container, stream):
                    tensor = convert(frame)
                    if not told:
                        yield _clock.rate(container, stream)
                        convert, told = ToTensor((tensor.shape[1], tensor.shape[2])), True
                    failures = 0
                    yield tensor
            if told and address.startswith(_HAS_END):
                return
        except (av.error.FFmpegError, OSError, IndexError) as error:
            why = reason(error)
        failures += 1
        if failures >= attempts:
            raise VideoError(
                f"{address}: {attempts} connections in a row brought no frame (the last one: {why}); check the "
                "address, and that the source runs"
            )
        time.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (failures - 1)))


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield all frames; where the source breaks off, those that the decoder still holds come before the error."""
    try:
        yield from container.decode(stream)
    except load().error.FFmpegError:
        yield from drain(stream)
        raise


def _opened(address: str) -> Any:
    scheme, colon, _ = address.partition("://")
    if not colon and not Path(address).exists():
        raise VideoError(f"{address}: neither a file nor an address such as rtsp://..., http://... or camera:0")
    options = {"rtsp_transport": "tcp"} if scheme == "rtsp" else {}
    return load().open(address, timeout=(_PATIENCE * 2, _PATIENCE), options=options, metadata_errors="replace")


def _camera(address: str, number: int, convert: ToTensor) -> Iterator[Any]:
    """Yield the frame rate of a camera, 30 if it states none, and then its frames."""
    try:
        import cv2
    except ImportError as error:
        raise VideoError(f'{address}: cameras need OpenCV; type: pip install "shortcutv2v[camera]"') from error
    source: Any = cv2.VideoCapture(number)
    try:
        if not source.isOpened():
            raise VideoError(f"{address}: cannot be opened; is it connected, and does no other program use it?")
        yield Fraction(source.get(cv2.CAP_PROP_FPS) or 30).limit_denominator(1001)
        while (read := source.read())[0]:
            yield convert(load().VideoFrame.from_ndarray(read[1], format="bgr24"))
        raise VideoError(f"{address}: gives no more frames; is it still connected?")
    finally:
        source.release()
