"""The only place that opens files with PyAV.

PyAV is an optional dependency, so it is imported when it is first needed and never when the package is imported.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from shortcutv2v.errors import VideoError

if TYPE_CHECKING:
    from av.container.input import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

__all__ = ["PathLike", "animated_webp", "is_cover", "load", "opened", "reason", "unsupported_webp"]

PathLike = str | os.PathLike[str]

# Playlists, text and devices are left out: some open other files, and FFmpeg draws any text file as a video.
_FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,obu,av1,ivf,flv,live_flv,asf,ogg,gif,apng,yuv4mpegpipe,"
    "mxf,nut,rm,dv,wtv,h261,h263,mjpeg,mpjpeg,vc1,vc1test,dirac,gxf,nsv,nuv,pva,ty,dhav,cavsvideo,avs2,avs3,amv,mjpeg_2000,"
    "dnxhd,bink,smk,roq,flic,r3d,cine,swf,vivo,lxf,ismv,xmv,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,"
    "jpegxl_pipe,j2k_pipe,exr_pipe,jpegxl_anim"
)
_DEFAULT, _ATTACHED_PICTURE, _TIMED_THUMBNAILS = 0x1, 0x400, 0x800


def load() -> Any:
    """Return the `av` module.

    Raises:
        VideoError: PyAV is not installed; the message says what to type.
    """
    try:
        import av
    except ImportError as error:
        raise VideoError('reading and writing video needs PyAV; type: pip install "shortcutv2v[video]"') from error
    # PyAV's log level stays at its default, off. At any other level, decoder threads report through Python, and
    # closing a decoder while one of them waits for the interpreter never ends.
    return av


def reason(error: BaseException) -> str:
    """Return FFmpeg's text for `error`, without its number and path."""
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def opened(
    path: Path, file: Path | IO[bytes] | None = None, raw: dict[str, str] | None = None
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video for demuxing, choose its picture stream, and close it at the end.

    Args:
        path: the name for messages.
        file: what to open if it is not `path`: another file, or bytes as they come.
        raw: FFmpeg's options for frames without a header; None for a video that states its format.

    Raises:
        VideoError: there is no such file, no video in it, or FFmpeg cannot read it.
    """
    av = load()
    given: Any = file or path
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        if isinstance(given, (str, os.PathLike)):
            _check_file(path, Path(given))
            # "file:" keeps FFmpeg from reading a colon in the name as a protocol and a percent sign as a pattern.
            given = f"file:{given}"
        if raw is not None:
            container = av.open(given, format="rawvideo", options=raw)
        else:  # titles of old files are often not UTF-8
            container = av.open(given, container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        why = "no known video format" if error.errno == errno.EINVAL else reason(error)
        expected = "expected a complete video file (mp4, mkv, webm...) or a folder of frames"
        raise VideoError(f"{path}: not a readable video ({why}); {expected}") from error
    try:
        yield container, _picture(path, container)
    finally:
        container.close()


def _check_file(path: Path, file: Path) -> None:
    """Refuse a file that does not exist, or whose first bytes say that FFmpeg cannot read it."""
    if not os.path.exists(file):  # a Path would raise on a name that is too long
        name = str(path).replace("\0", "\\0")
        raise VideoError(f"{name}: no such file or folder; check the spelling")
    with open(file, "rb") as head:
        if animated_webp(head.read(21)):
            raise unsupported_webp(path)


def animated_webp(head: bytes) -> bool:
    """Return whether a file that begins with these 21 bytes is a WebP image of several frames."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:] and head[20] & 2)


def unsupported_webp(path: Path) -> VideoError:
    """Return the error for a WebP image of several frames."""
    return VideoError(f"{path}: animated WebP, which FFmpeg does not decode; convert it to a GIF or a video first")


def _picture(path: Path, container: InputContainer) -> VideoStream:
    """Return the stream that FFmpeg's own program would take: the largest, or the default one among equals."""
    streams = [s for s in container.streams.video if not is_cover(s)]
    if not streams:
        raise VideoError(f"{path}: no video stream in this file; expected a video, not only sound or a cover picture")
    known = [s for s in streams if s.codec_context is not None]
    if not known:
        raise VideoError(f"{path}: FFmpeg does not know the codec of its pictures; convert it where it was made")
    return max(known, key=lambda s: s.width * s.height + 5_000_000 * (_disposition(s) & _DEFAULT))


def _disposition(stream: Stream) -> int:
    found = getattr(stream, "disposition", 0)
    return int(getattr(found, "value", found))  # an enum up to PyAV 15


def is_cover(stream: Stream) -> bool:
    """Return whether a video stream is the cover of a music file, or the previews of a player's time line."""
    return bool(_disposition(stream) & (_ATTACHED_PICTURE | _TIMED_THUMBNAILS))
