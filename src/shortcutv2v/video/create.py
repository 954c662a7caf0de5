"""From a target's name to its writer: a video file, or a folder of images."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import IO

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import PathLike
from shortcutv2v.video._part import FilePart, PipePart
from shortcutv2v.video._shape import IMAGE_SUFFIXES, SDR, Colour
from shortcutv2v.video._stream import as_rate
from shortcutv2v.video.audio import AudioCopy
from shortcutv2v.video.write import WRITABLE, FolderWriter, PlainWriter, VideoWriter, Writer

__all__ = ["Target", "as_target", "create", "is_folder", "writer_for"]

Target = Path | IO[bytes]
"""Where frames go: a file, a folder, or bytes through a pipe."""

# fmt: off
_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)
# fmt: on


def create(
    target: PathLike | IO[bytes],
    *,
    rate: Fraction | float = 25,
    time_base: Fraction | None = None,
    crf: float = 16,
    preset: str = "medium",
    image: str = ".png",
    raw: bool = False,
) -> Writer:
    """Begin a clip of your own frames: a video file, or a folder of images if the name has no suffix.

    Args:
        target: `.mp4`, `.m4v`, `.mov` or `.mkv` for H.264 video; `.y4m` for yuv4mpeg, without compression; a name
            without suffix for a folder; a binary file object, such as a pipe, for yuv4mpeg.
        rate: frames per second.
        time_base: unit of the time stamps in seconds; default one frame.
        crf: H.264 quality, 0 (lossless apart from colour) to 51; 16 is hard to tell from the original.
        preset: x264's trade between time and size, `ultrafast` to `placebo`.
        image: kind of images in a folder, `.png` or `.jpg`.
        raw: into a file object, write RGB without any header.

    Returns:
        A `Writer` to use in a `with` block.

    Raises:
        VideoError: the suffix cannot be written, there is no folder to write in, no access, a target folder is not
            empty, another run is writing the target, or an argument is out of its range.

    Examples:
        ```python
        with video.create("out.mp4", rate=25) as out:
            for frame in frames:            # uint8 (3, H, W)
                out.write(frame)
        ```
    """
    frame_rate = as_rate(rate)
    return writer_for(as_target(target), frame_rate, time_base or 1 / frame_rate, crf, preset, image, raw=raw)


def as_target(target: PathLike | IO[bytes]) -> Target:
    """Return what a user gives as a target, a name as a path."""
    return Path(target) if isinstance(target, (str, os.PathLike)) else target


def writer_for(
    target: Target,
    rate: Fraction,
    time_base: Fraction,
    crf: float,
    preset: str,
    image: str,
    *,
    names: list[str] | None = None,
    sound: AudioCopy | None = None,
    pixel_aspect: Fraction = Fraction(1),
    colour: Colour = SDR,
    raw: bool = False,
) -> Writer:
    """Return the writer of `target`, as `create` does, with what only a conversion has.

    `names` are those of a folder's images, without suffix (default: six digits). A video file gets `sound`, the width
    of its pixels by their height, and how its values are to be shown.
    """
    if not isinstance(target, Path):
        return PlainWriter(PipePart(target), rate, raw, pixel_aspect)
    if raw:
        raise VideoError(f"{target}: raw=True is for file objects, because no file states the size of raw frames")
    if is_folder(target):
        if image not in {".png", ".jpg"}:
            raise VideoError(f"image={image!r}: frames cannot be written so; expected '.png' or '.jpg'")
        return FolderWriter(target, image, names)
    _check_suffix(target)
    if not 0 <= crf <= 51:
        raise VideoError(f"crf={crf}: no H.264 quality; expected 0 (best) to 51 (worst)")
    if preset not in _PRESETS:
        raise VideoError(f"preset={preset!r}: unknown to x264; expected one of {', '.join(_PRESETS)}")
    if target.suffix.lower() == ".y4m":
        return PlainWriter(FilePart(target), rate, raw, pixel_aspect)
    return VideoWriter(target, rate, time_base, crf, preset, sound, pixel_aspect, colour)


def is_folder(target: Target) -> bool:
    """Return whether a target means a folder of frames."""
    return isinstance(target, Path) and (os.path.isdir(target) or not target.suffix)


def _check_suffix(target: Path) -> None:
    """Refuse suffixes that cannot be written."""
    if target.suffix.lower() in {*WRITABLE, ".y4m"}:
        return
    hint = "; for single frames give a folder, a name without suffix" if target.suffix.lower() in IMAGE_SUFFIXES else ""
    raise VideoError(
        f"{target}: cannot write {target.suffix} files; expected {', '.join(sorted(WRITABLE))}, .y4m, or a folder{hint}"
    )
