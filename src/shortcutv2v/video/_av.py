"""The one door to PyAV.

PyAV is an optional dependency, so it is imported where it is first needed and never at import time of the package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortcutv2v.errors import VideoError

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.video.stream import VideoStream

__all__ = ["PathLike", "load", "opened", "reason"]

PathLike = str | os.PathLike[str]


def load() -> Any:
    """The `av` module.

    Raises:
        VideoError: PyAV is not installed; the message says what to type.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError('reading and writing video needs PyAV; type: pip install "shortcutv2v[video]"') from error
    # PyAV's log level stays at its default, off: at any other, decoder threads report through Python, and closing a
    # decoder while one of them waits for the interpreter never ends.
    return av


def reason(error: BaseException) -> str:
    """What FFmpeg says about `error`, without its number and path."""
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open `path` for demuxing and pick its first real video stream; closed again at the end.

    Raises:
        VideoError: no such file, no video in it, or nothing that FFmpeg can read.
    """
    av = load()
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder; check the spelling")
    try:
        # "file:" keeps FFmpeg from reading a colon in the name as a protocol and a percent sign as a pattern.
        container = av.open(f"file:{path}")
    except av.error.FFmpegError as error:
        raise VideoError(
            f"{path}: not a readable video ({reason(error)}); expected a complete video file (mp4, mkv, webm...) "
            "or a folder of frames"
        ) from error
    try:
        streams = [s for s in container.streams.video if not _is_cover(s)]
        if not streams:
            raise VideoError(
                f"{path}: no video stream in this file; expected a video, not only sound or a cover picture"
            )
        yield container, streams[0]
    finally:
        container.close()


def _is_cover(stream: VideoStream) -> bool:
    """Whether the stream is the cover picture of a music file, which containers store as a video stream."""
    disposition = getattr(stream, "disposition", None)
    return disposition is not None and "attached_pic" in str(disposition)
