"""From files and folders that the user names to a list of clips that can be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from shortcutv2v.errors import VideoError
from shortcutv2v.video._av import PathLike, load, reason
from shortcutv2v.video._shape import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from shortcutv2v.video.clip import list_frames
from shortcutv2v.video.frames import Frames
from shortcutv2v.video.picture import MAGIC, codec_of

__all__ = ["films_in", "find_clips"]


def find_clips(paths: PathLike | Iterable[PathLike], *, min_frames: int = 1) -> list[Path]:
    """List the clips among video files, folders of videos and folders of frames, in any mixture.

    A folder that holds videos stands for each of them; a folder that holds only images is one clip; both at any depth.
    Every clip is checked as `Frames` checks it: its packets are read, so a truncated file is found here. In a folder of
    frames, every file must begin as an image does.

    Args:
        paths: one path or several.
        min_frames: leave out shorter clips; 2 if pairs are needed.

    Returns:
        The clips in a fixed order (as named, natural order inside folders), each once.

    Raises:
        VideoError: a path does not exist, or no clip is left.

    Warns:
        UserWarning: some were left out; the message says how many of how many, and why each.
    """
    load()
    named = [Path(paths)] if isinstance(paths, (str, os.PathLike)) else [Path(path) for path in paths]
    found: dict[Path, Path] = {}
    for path in named:
        if not os.path.exists(path):
            raise VideoError(f"{path}: no such file or folder; check the spelling")
        for clip in films_in(path):
            found.setdefault(clip.resolve(), clip)
    bad = {clip: why for clip in found.values() if (why := _trouble(clip, min_frames))}
    good = [clip for clip in found.values() if clip not in bad]
    reasons = "; ".join(bad.values())
    if not good:
        where = ", ".join(str(path) for path in named) or "an empty list"
        raise VideoError(
            f"no usable clip among {len(found)} found in {where}; expected videos or folders of frames"
            + (f". {reasons}" if reasons else "")
        )
    if bad:
        warnings.warn(f"{len(bad)} of {len(found)} clips left out: {reasons}", stacklevel=2)
    return good


def films_in(folder: Path) -> Iterator[Path]:
    """Yield the clips below a folder, without looking into them; a file is one itself."""
    if not folder.is_dir():
        yield folder
        return
    inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    videos = [p for p in inside if p.is_file() and p.suffix.lower() in VIDEO_SUFFIXES]
    if not videos and any(p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES for p in inside):
        yield folder
    yield from videos
    for deeper in inside:
        if deeper.is_dir():
            yield from films_in(deeper)


def _trouble(clip: Path, min_frames: int) -> str:
    """Return why a clip cannot be used; empty if it can."""
    try:
        count = len(Frames(clip))
        for path in list_frames(clip) if clip.is_dir() else ():
            with path.open("rb") as file:
                codec_of(path, file.read(max(map(len, MAGIC))))
    except VideoError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename}: cannot be read ({reason(error)})"
    return f"{clip}: {count} frames, fewer than {min_frames}" if count < min_frames else ""
