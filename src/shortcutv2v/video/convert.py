"""From clip to clip, frame by frame."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from shortcutv2v.bar import bar
from shortcutv2v.errors import VideoError
from shortcutv2v.video import clip as clips
from shortcutv2v.video._av import PathLike
from shortcutv2v.video.audio import AudioCopy
from shortcutv2v.video.create import is_folder, writer_for
from shortcutv2v.video.picture import Size
from shortcutv2v.video.write import Writer

__all__ = ["Ahead", "convert"]


@runtime_checkable
class Ahead(Protocol):
    """Something that turns a whole video into pictures, and may read some frames ahead."""

    def play(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield one picture per frame, in order; all are uint8 (3, H, W)."""
        ...


def convert(
    source: PathLike | clips.Clip,
    target: PathLike,
    step: Callable[[Tensor], Tensor] | Ahead,
    *,
    size: Size = None,
    start: int = 0,
    stop: int | None = None,
    rate: Fraction | float | None = None,
    tone_map: bool = False,
    crf: float = 16,
    preset: str = "medium",
    image: str = ".png",
    audio: bool = True,
    progress: bool = True,
) -> int:
    """Read `source`, pass every frame through `step`, write `target`.

    Frame count, time stamps (even or uneven) and frame rate stay as they are. Time counts from the file's beginning, as
    players and FFmpeg count it. Audio packets are copied untouched; sound that the target cannot hold becomes AAC. With
    `start`, picture and sound are cut there and the time stamps count from 0. One frame at a time is in memory.

    Args:
        source: video file or folder of frames; or a clip opened already, which has its own size, range and rate.
        target: `.mp4`, `.m4v`, `.mov` or `.mkv`, replaced if it exists; or a folder (a name without suffix), which must
            be empty or absent. It gets its name only when it is complete.
        step: called with uint8 (3, H, W), returns uint8 (3, H', W'), the same H' and W' for all frames. An object with
            a method `play(frames) -> pictures` may read some frames ahead; it yields one picture per frame, in order.
        size: read at this size, see `open`.
        start: first frame, counted from 0.
        stop: the frame to stop before.
        rate: frames per second of a folder given as source (25 if not given).
        tone_map: see `open`.
        crf: see `create`.
        preset: see `create`.
        image: see `create`.
        audio: keep the sound, if there is any and the target is a file.
        progress: show a bar on standard error.

    Returns:
        How many frames were written.

    Raises:
        VideoError: source, target or the result of `step` is wrong. Errors of `step` pass through. In all cases nothing
            is left under the target's name that was not there before.

    Warns:
        UserWarning: once at the end, a line that lists what was not kept, such as subtitles or transparency.

    Examples:
        ```python
        video.convert("clip.mp4", "negative.mp4", lambda frame: 255 - frame)
        ```
    """
    target = Path(target)
    with ExitStack() as stack:
        if isinstance(source, clips.Clip):
            clip = source
        else:
            clip = stack.enter_context(
                clips.open(source, size=size, start=start, stop=stop, rate=rate, tone_map=tone_map)
            )
        _check_distinct(clip.path, target)
        sound = None
        if audio and isinstance(clip, clips.VideoClip) and not is_folder(target):
            sound = stack.enter_context(closing(AudioCopy(clip.path, clip.file)))
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
            colour=clip.colour,
        )
        _copy(clip, stack.enter_context(out), step, sound, progress)
    _tell(clip, target, sound, audio)
    return out.count


def _copy(
    clip: clips.Clip, out: Writer, step: Callable[[Tensor], Tensor] | Ahead, sound: AudioCopy | None, progress: bool
) -> None:
    times: deque[Fraction] = deque()  # of frames that were read; their pictures may come later

    def frames() -> Iterator[Tensor]:
        for time, frame in clip.timed():
            times.append(time)
            yield frame

    begin, time = None, Fraction(0)
    with bar(total=clip.frames, unit="frame", desc=out.target.name, disable=not progress) as shown:
        for picture in step.play(frames()) if isinstance(step, Ahead) else map(step, frames()):
            time = times.popleft()
            if begin is None:
                begin = time if clip.start or clip.begin is None else min(clip.begin, time)
                if sound is not None:
                    sound.begin, sound.cut = begin, clip.start > 0
            out.write(picture, time - begin)
            shown.update()
    out.last = clip.last
    if sound is not None and clip.stop is not None:
        sound.end = time + 1 / clip.rate


def _tell(clip: clips.Clip, target: Path, sound: AudioCopy | None, audio: bool) -> None:
    """Warn, in one line, of what the target does not have and the source has."""
    lost = list(clip.lost)
    if sound is not None:
        lost += sound.summary()
    elif audio and clip.sounds:
        lost.append(f"sound tracks ({clip.sounds}), because a folder holds none")
    if clip.skipped:
        lost.append(f"pictures before the first key frame ({clip.skipped})")
    if clip.transparent:
        lost.append("transparency, so hidden colours show")
    if clip.colour.hdr:
        lost.append(f"bits of its {clip.colour.hdr} (HDR) values, which are not tone-mapped (tone_map=True does so)")
    lines = [f"not kept: {', '.join(lost)}"] if lost else []
    if sound is not None and sound.recoded:
        lines.append(f"sound encoded anew as AAC, because {target.suffix} takes no {', '.join(sound.recoded)}")
    if not clip.ends and clip.stop is None:
        lines.append("the source does not say how long it is, so a missing end would not be noticed")
    if lines:
        warnings.warn(f"{target}: {'; '.join(lines)}", stacklevel=3)


def _names(clip: clips.Clip) -> list[str] | None:
    """Return names for the images of a folder, from the source's if no two would share a name."""
    names = [file.stem for file in clip.files[clip.start : clip.stop]] if isinstance(clip, clips.FolderClip) else []
    return names if names and len(set(names)) == len(names) else None


def _check_distinct(source: Path, target: Path) -> None:
    if os.path.exists(target) and target.samefile(source):
        raise VideoError(f"{target}: source and target are the same; choose another name for the output")
