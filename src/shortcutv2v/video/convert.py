"""From clip to clip, frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path

from torch import Tensor

from shortcutv2v.errors import VideoError
from shortcutv2v.video import clip as clips
from shortcutv2v.video._av import PathLike
from shortcutv2v.video.audio import AudioCopy
from shortcutv2v.video.create import is_folder, writer_for
from shortcutv2v.video.picture import Size
from shortcutv2v.video.write import Writer

__all__ = ["convert"]


def convert(
    source: PathLike,
    target: PathLike,
    step: Callable[[Tensor], Tensor],
    *,
    size: Size = None,
    start: int = 0,
    stop: int | None = None,
    rate: Fraction | float | None = None,
    crf: float = 16,
    preset: str = "medium",
    image: str = ".png",
    audio: bool = True,
    progress: bool = True,
) -> int:
    """Read `source`, pass every frame through `step`, write `target`.

    Frame count, time stamps (even or uneven) and frame rate stay what they are; audio packets are copied untouched.
    With `start`, picture and sound are cut there and the time stamps count from 0. One frame at a time is in memory.

    Args:
        source: video file or folder of frames.
        target: `.mp4`, `.m4v`, `.mov` or `.mkv`, replaced if it exists; or a folder (a name without suffix), which must
            be empty or absent. It gets its name only when complete.
        step: called with uint8 (3, H, W), returns uint8 (3, H', W'), the same H' and W' for all frames.
        size: read at this size, see `open`.
        start: first frame, counted from 0.
        stop: the frame to stop before.
        rate: frames per second of a folder given as source (25 if not given).
        crf: see `create`.
        preset: see `create`.
        image: see `create`.
        audio: copy the sound, if there is any and the target is a file.
        progress: show a bar on standard error.

    Returns:
        How many frames were written.

    Raises:
        VideoError: anything wrong with source, target or what `step` returns. Errors of `step` pass through. In all
            cases nothing is left under the target's name that was not there before.

    Examples:
        ```python
        video.convert("clip.mp4", "negative.mp4", lambda frame: 255 - frame)
        ```
    """
    source, target = Path(source), Path(target)
    with ExitStack() as stack:
        clip = stack.enter_context(clips.open(source, size=size, start=start, stop=stop, rate=rate))
        _check_distinct(source, target)
        sound = None
        if audio and source.is_file() and not is_folder(target):
            sound = stack.enter_context(closing(AudioCopy(source)))
        out = writer_for(
            target,
            clip.rate,
            clip.time_base,
            crf,
            preset,
            image,
            names=_names(clip),
            sound=sound,
            pixel_aspect=clip.pixel_aspect,
        )
        _copy(clip, stack.enter_context(out), step, sound, progress)
    return out.count


def _copy(
    clip: clips.Clip, out: Writer, step: Callable[[Tensor], Tensor], sound: AudioCopy | None, progress: bool
) -> None:
    from tqdm import tqdm

    begin, time = None, Fraction(0)
    with tqdm(total=clip.frames, unit="frame", desc=out.target.name, disable=not progress) as bar:
        for time, frame in clip.timed():
            if begin is None:
                begin = time if clip.start else Fraction(0)
                if sound is not None:
                    sound.begin = begin
            out.write(step(frame), time - begin)
            bar.update()
    if sound is not None and clip.stop is not None:
        sound.end = time + 1 / clip.rate


def _names(clip: clips.Clip) -> list[str] | None:
    """What the images of a folder are called, where no two would share a name."""
    names = [file.stem for file in clip.files[clip.start : clip.stop]] if isinstance(clip, clips.FolderClip) else []
    return names if names and len(set(names)) == len(names) else None


def _check_distinct(source: Path, target: Path) -> None:
    if target.exists() and target.samefile(source):
        raise VideoError(f"{target}: source and target are the same; choose another name for the output")
