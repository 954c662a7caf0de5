"""The plan of a film: a fingerprint of the source, its time stamps, its scene cuts, and the segments to translate."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median

from torch import Tensor

from shortcutv2v import video
from shortcutv2v.errors import InputError, VideoError
from shortcutv2v.pair import replace

__all__ = ["Film", "Plan", "file_print", "find_films", "make_plan", "scene_cuts", "segments"]

LONGEST = 10
"""Seconds of a segment, at most."""
_THUMB = (36, 64)
_LEAST_STEP, _JUMP = 18.0, 3.0
"""Mean change of a pixel, of 255, that a cut makes at least; and how many times the usual change."""
_ENDS = 1 << 20
_WRITABLE = {".mp4", ".m4v", ".mov", ".mkv"}


@dataclass(frozen=True)
class Film:
    """A source and its target.

    Attributes:
        source: a video file, or a folder of images.
        target: the file that it becomes.
        name: tells it from the other films of a folder; the target's path inside the folder.
    """

    source: Path
    target: Path
    name: str


@dataclass
class Plan:
    """The written plan of a film.

    Attributes:
        fingerprint: of the source, see `file_print`.
        ticks: time stamp of every frame in the target, in units of `base` seconds.
        base: seconds per tick, as "1/12800".
        begin: the time of the source, in seconds, that becomes 0 in the target.
        last: how long the last frame is shown, in seconds; "0" if the source does not say.
        cuts: numbers of the frames at which scenes begin; the first is 0.
        segments: (start, stop) of every segment, in frames.
        notes: what the target does not keep of the source, in words.
        output: fingerprint of the joined film, None before.
    """

    fingerprint: str
    ticks: list[int]
    base: str
    begin: str
    last: str
    cuts: list[int]
    segments: list[tuple[int, int]]
    notes: list[str]
    output: str | None = None

    @staticmethod
    def read(path: Path) -> Plan | None:
        """Return the plan in a file; None if there is none, or not a whole one."""
        try:
            plan = Plan(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        plan.segments = [(start, stop) for start, stop in plan.segments]
        return plan

    def write(self, path: Path) -> None:
        """Write the plan, all of it or nothing."""
        replace(path, json.dumps(dataclasses.asdict(self)).encode())


def find_films(sources: Sequence[Path], folder: Path) -> list[Film]:
    """List the films of files and folders, with targets in `folder` that repeat their places and names.

    Args:
        sources: video files, and folders of them at any depth. A folder that holds only images is one film.
        folder: where the targets go; a source of a format that cannot be written becomes `.mp4`.

    Raises:
        VideoError: a source does not exist, or holds no film.
        InputError: two films would have one target.
    """
    films: dict[str, Film] = {}
    for source in sources:
        if not source.exists():
            raise VideoError(f"{source}: no such file or folder; check the spelling")
        found = [path for path in video.films_in(source) if folder.resolve() not in path.resolve().parents]
        if not found:
            raise VideoError(f"{source}: no films in this folder; expected videos, or folders of frames")
        for path in found:
            place = path.relative_to(source) if path != source else Path(path.name)
            name = str(place if place.suffix.lower() in _WRITABLE and path.is_file() else f"{place}.mp4")
            if name in films and films[name].source.resolve() != path.resolve():
                raise InputError(f"{films[name].source} and {path} would both become {folder / name}: rename one")
            films.setdefault(name, Film(path, folder / name, name))
    return list(films.values())


def file_print(path: Path) -> str:
    """Return a fingerprint of a file: its size, its first and its last MiB; of a folder, that of its files' names.

    Raises:
        VideoError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
            return digest.hexdigest()
        with path.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            for place in {0, max(0, size - _ENDS)}:
                opened.seek(place)
                digest.update(opened.read(_ENDS))
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); bring it back, or leave it out") from error
    return f"{size}-{digest.hexdigest()}"


def make_plan(film: Film, interval: int | None) -> Plan:
    """Read a film once, at thumbnail size, and plan it.

    Args:
        film: what to plan.
        interval: scenes are divided at multiples of this number of frames; None for one segment per scene.

    Raises:
        VideoError: the film cannot be read to its end.
    """
    fingerprint = file_print(film.source)
    times: list[Fraction] = []

    def thumbs(clip: video.Clip) -> Iterator[Tensor]:
        for time, frame in clip.timed():
            times.append(time)
            yield frame

    with video.open(film.source, size=_THUMB) as clip:
        cuts = scene_cuts(thumbs(clip))
        begin = times[0] if clip.begin is None else min(clip.begin, times[0])
        longest = None if interval is None else round(LONGEST * clip.rate)
        return Plan(
            fingerprint=fingerprint,
            ticks=[round((time - begin) / clip.time_base) for time in times],
            base=str(clip.time_base),
            begin=str(begin),
            last=str(clip.last),
            cuts=cuts,
            segments=segments(cuts, len(times), longest, interval or 1),
            notes=video.not_kept(clip),
        )


def scene_cuts(frames: Iterable[Tensor]) -> list[int]:
    """Return the numbers of the frames at which scenes begin; the first is 0.

    A cut is a step that is large, and several times as large as the steps before it. It is found for the places of
    segments only: a cut that is missed costs a little quality at most.

    Args:
        frames: small pictures, uint8 (3, H, W).

    Examples:
        >>> import torch
        >>> dark, light = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.full((3, 4, 4), 200, dtype=torch.uint8)
        >>> scene_cuts([dark, dark, light, light, dark])
        [0, 2, 4]
    """
    cuts, before, steps = [0], None, deque[float](maxlen=8)
    for number, frame in enumerate(frames):
        if before is not None:
            step = float((frame.float() - before).abs().mean())
            if steps and step > max(_LEAST_STEP, _JUMP * median(steps)):
                cuts.append(number)
            steps.append(step)
        before = frame.float()
    return cuts


def segments(cuts: Sequence[int], count: int, longest: int | None, interval: int) -> list[tuple[int, int]]:
    """Divide a film into segments that begin at a cut, or at a multiple of `interval` frames after one.

    Args:
        cuts: where scenes begin; the first is 0.
        count: frames of the film.
        longest: frames of a segment, at most, but always one interval; short scenes share one. None for one segment
            per scene.
        interval: frames from one refresh to the next.

    Examples:
        >>> segments([0, 30, 45], count=130, longest=50, interval=4)
        [(0, 45), (45, 93), (93, 130)]
        >>> segments([0, 30, 45], count=130, longest=None, interval=4)
        [(0, 30), (30, 45), (45, 130)]
    """
    scenes = list(zip(cuts, [*cuts[1:], count], strict=True))
    if longest is None:
        return scenes
    piece = max(1, longest // interval) * interval
    found: list[tuple[int, int]] = []
    for start, stop in scenes:
        for begin in range(start, stop, piece):
            end = min(begin + piece, stop)
            if found and end - found[-1][0] <= longest:
                found[-1] = found[-1][0], end
            else:
                found.append((begin, end))
    return found
