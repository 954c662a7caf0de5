"""`shortcutv2v measure`: quality and time of a trained block on a clip, beside the teacher and the free baselines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from torch import Tensor

from shortcutv2v import video
from shortcutv2v.cli.setup import LONGEST, frame_range, frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure.compare import METHODS, Scores, compare

__all__ = ["interval_table", "quality_table", "run", "time_table"]

NAMES = {"ours": "ours", "reuse": "f_ref reused", "repeat": "last output repeated"}


def run(options: argparse.Namespace) -> None:
    """Translate the clip with teacher and wrapped model, frame by frame in turn; print tables and the worst frames."""
    start, stop = frame_range(options.frames)
    intervals = _intervals(options.intervals)
    if intervals and options.quality is not None:
        raise InputError("give one of --intervals, --quality")
    goal = {} if options.quality is None else {"quality": options.quality}
    with video.open(options.source, size=frame_size(options.size), start=start, stop=stop) as clip:
        adapter = open_adapter(options)
        model = load_model(options.block, adapter)
        found: dict[int, Scores] = {}
        for interval in intervals or [0]:
            frames = _Frames(clip)
            asked = {"refresh": interval} if interval else goal
            scores = Scores([pictures.score for pictures in compare(model, adapter, frames, **asked)])
            found[interval] = scores
    if intervals:
        print("\n".join([*interval_table(found), ""]))
        for interval, scores in found.items():
            print(f"interval {interval}, {_worst(scores, start, frames.times)}")
    else:
        tables = [*quality_table({options.source.name: scores}), "", *time_table(scores)]
        print("\n".join([*tables, "", _worst(scores, start, frames.times)]))


@dataclass
class _Frames:
    """The frames of a clip, and their times once they were read."""

    clip: video.Clip
    times: list[Fraction] = field(default_factory=list)

    def __iter__(self) -> Iterator[Tensor]:
        for time, frame in self.clip.timed():
            self.times.append(time)
            yield frame


def _worst(scores: Scores, start: int, times: Sequence[Fraction]) -> str:
    """Name the worst frames, so that they can be looked at."""
    frames = (
        f"{start + score.number} at {float(times[score.number]):.2f} s ({score.psnr['ours']:.2f} dB, "
        f"distance {score.distance})"
        for score in scores.worst()
    )
    return f"worst frames: {', '.join(frames)}"


def interval_table(scores: dict[int, Scores]) -> Iterator[str]:
    """Markdown lines: quality and time by interval, over the shortcut frames, beside the free baselines."""
    header = ["interval", *(f"{NAMES[method]}, dB" for method in METHODS), "worst frame, dB", "SSIM"]
    yield f"| {' | '.join([*header, 'ms per frame', 'x faster'])} |"
    yield f"|{'---:|' * (len(header) + 2)}"
    for interval, found in scores.items():
        decibels = [*(found.psnr(method) for method in METHODS), found.worst_psnr("ours")]
        numbers = " | ".join(f"{value:.2f}" for value in decibels)
        speed = found.teacher_seconds / found.average_seconds
        yield (
            f"| {interval} | {numbers} | {found.ssim('ours'):.4f} | {found.average_seconds * 1000:.0f} | {speed:.2f} |"
        )


def quality_table(scores: dict[str, Scores]) -> Iterator[str]:
    """Markdown lines: PSNR and SSIM to the teacher's output over the shortcut frames, by clip and method."""
    distances = sorted({frame.distance for part in scores.values() for frame in part.at()})
    header = ["part", "method", "PSNR dB", *(f"distance {d}" for d in distances), "worst frame", "SSIM"]
    yield f"| {' | '.join(header)} |"
    yield f"|---|---|{'---:|' * (len(header) - 2)}"
    for part, found in scores.items():
        for method in METHODS:
            values = [found.psnr(method), *(found.psnr(method, d) for d in distances), found.worst_psnr(method)]
            numbers = " | ".join(f"{value:.2f}" for value in values)
            yield f"| {part} | {NAMES[method]} | {numbers} | {found.ssim(method):.4f} |"


def time_table(scores: Scores) -> Iterator[str]:
    """Markdown lines: milliseconds of each kind of frame."""
    yield "| | ms | x faster |"
    yield "|---|---:|---:|"
    teacher = scores.teacher_seconds
    rows = {
        "teacher frame": teacher,
        "shortcut frame": scores.shortcut_seconds,
        "average video frame": scores.average_seconds,
    }
    for name, seconds in rows.items():
        yield f"| {name} | {seconds * 1000:.0f} | {teacher / seconds:.2f} |"


def _intervals(text: str | None) -> list[int]:
    """The intervals of `--intervals`, in order, each once."""
    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 2 <= int(part) <= LONGEST for part in parts):
        raise InputError(
            f"--intervals {text}: expected whole numbers of 2 or more between commas, such as 2,3,4,6 (at interval 1 "
            "every frame is the teacher's)"
        )
    return sorted({int(part) for part in parts})
