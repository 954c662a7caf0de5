"""`shortcutv2v measure`: quality and time of a trained block on a clip, beside the teacher and the free baselines."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from shortcutv2v import video
from shortcutv2v.cli.setup import frame_size, load_model, open_adapter
from shortcutv2v.errors import InputError
from shortcutv2v.measure.compare import METHODS, Scores, compare

__all__ = ["quality_table", "run", "time_table"]

NAMES = {"ours": "ours", "reuse": "f_ref reused", "repeat": "last output repeated"}


def run(options: argparse.Namespace) -> None:
    """Translate the clip with teacher and wrapped model, frame by frame in turn, and print two tables."""
    start, stop = _frames(options.frames)
    with video.open(options.source, size=frame_size(options.size), start=start, stop=stop) as clip:
        adapter = open_adapter(options)
        model = load_model(options.block, adapter)
        scores = Scores([pictures.score for pictures in compare(model, adapter, clip)])
    print("\n".join([*quality_table({options.source.name: scores}), "", *time_table(scores)]))


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


def _frames(text: str | None) -> tuple[int, int | None]:
    if text is None:
        return 0, None
    start, colon, stop = text.partition(":")
    if not colon or not all(part == "" or part.isdigit() for part in (start, stop)):
        raise InputError(f"--frames {text!r}: expected START:STOP, such as 43:63")
    return int(start or 0), int(stop) if stop else None
