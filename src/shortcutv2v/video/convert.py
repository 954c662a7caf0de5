"""From clip to clip, frame by frame."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from torch import Tensor

from shortcutv2v.bar import bar
from shortcutv2v.errors import VideoError
from shortcutv2v.video import clip as clips
from shortcutv2v.video._av import PathLike
from shortcutv2v.video.audio import AudioCopy
from shortcutv2v.video.base import Clip
from shortcutv2v.video.create import as_target, is_folder, writer_for
from shortcutv2v.video.picture import Size
from shortcutv2v.video.write import Writer

__all__ = ["Ahead", "convert", "not_kept", "warn_of"]


@runtime_checkable
class Ahead(Protocol):
    """Something that turns a whole video into pictures, and may read some frames ahead."""

    def play(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield one picture per frame, in order; all are uint8 (3, H, W)."""
        ...


def convert(
    source: PathLike | Clip,
    target: PathLike | IO[bytes],
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
    raw: bool = False,
) -> int:
    """Read `source`, pass every frame through `step`, write `target`.

    Frame count, time stamps (even or uneven) and frame rate stay as they are. Time counts from the file's beginning, as
    players and FFmpeg count it. Audio packets are copied untouched; sound that the target cannot hold becomes AAC. With
    `start`, picture and sound are cut there and the time stamps count from 0. One frame at a time is in memory.

    Args:
        source: video file or folder of frames; or a clip opened already, which has its own size, range and rate.
        target: `.mp4`, `.m4v`, `.mov`, `.mkv` or `.y4m`, replaced if it exists; or a folder (a name without suffix),
            which must be empty or absent. It gets its name only when it is complete. Or a binary file object.
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
        raw: see `create`.

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
    target = as_target(target)
    with ExitStack() as stack:
        if isinstance(source, Clip):
            clip = source
        else:
            clip = stack.enter_context(
                clips.open(source, size=size, start=start, stop=stop, rate=rate, tone_map=tone_map)
            )
        if isinstance(target, Path) and os.path.exists(target) and target.samefile(clip.path):
            raise VideoError(f"{target}: source and target are the same; choose another name for the output")
        sound = None
        file = clip.file if isinstance(clip, clips.VideoClip) else None
        if audio and isinstance(file, Path) and isinstance(target, Path) and not is_folder(target):
            sound = stack.enter_context(closing(AudioCopy(clip.path, file)))
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
            raw=raw,
        )
        _copy(clip, stack.enter_context(out), step, sound, progress)
    why = "a pipe holds none"
    if isinstance(target, Path):
        why = "a folder holds none" if is_folder(target) else "a pipe can be read only once"
    _tell(clip, out.target, sound, why if audio else "")
    return out.count


def _copy(
    clip: Clip, out: Writer, step: Callable[[Tensor], Tensor] | Ahead, sound: AudioCopy | None, progress: bool
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


def not_kept(clip: Clip) -> list[str]:
    """Return what a clip that was read holds besides frames and sound, and what frames lose, in words."""
    lost = list(clip.lost)
    if clip.skipped:
        lost.append(f"pictures before the first key frame ({clip.skipped})")
    if clip.transparent:
        lost.append("transparency, so hidden colours show")
    if clip.colour.hdr:
        lost.append(f"bits of its {clip.colour.hdr} (HDR) values, which are not tone-mapped (tone_map=True does so)")
    return lost


def _tell(clip: Clip, target: Path, sound: AudioCopy | None, why: str) -> None:
    """Warn, in one line, of what the target does not have and the source has; `why` it would have no sound."""
    lost = not_kept(clip)
    if sound is None and why and clip.sounds:
        lost.append(f"sound tracks ({clip.sounds}), because {why}")
    lines = [] if clip.ends or clip.stop is not None else [_NO_END]
    warn_of(target, lost, sound, lines)


_NO_END = "the source does not say how long it is, so a missing end would not be noticed"


def warn_of(target: Path, lost: list[str], sound: AudioCopy | None, lines: Sequence[str] = ()) -> None:
    """Warn of what was lost, and of what was lost of the sound, in one line; keep quiet if nothing was."""
    lost = [*lost, *(sound.summary() if sound is not None else ())]
    said = [f"not kept: {', '.join(lost)}"] if lost else []
    if sound is not None and sound.recoded:
        said.append(f"sound encoded anew as AAC, because {target.suffix} takes no {', '.join(sound.recoded)}")
    if said or lines:
        warnings.warn(f"{target}: {'; '.join([*said, *lines])}", stacklevel=4)


def _names(clip: Clip) -> list[str] | None:
    """Return names for the images of a folder, from the source's if no two would share a name."""
    names = [file.stem for file in clip.files[clip.start : clip.stop]] if isinstance(clip, clips.FolderClip) else []
    return names if names and len(set(names)) == len(names) else None
