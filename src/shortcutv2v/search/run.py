"""`auto()`: from a network and a film to a faster film."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from shortcutv2v import video
from shortcutv2v.adapter import Adapter
from shortcutv2v.adapter_check import check_adapter
from shortcutv2v.bar import say
from shortcutv2v.distill.checks import checked_folder, only_run_in
from shortcutv2v.distill.clips import FrameSource, Part
from shortcutv2v.errors import InputError
from shortcutv2v.goals import parse_quality
from shortcutv2v.measure import Scores, Setting, measure
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.report import write_report
from shortcutv2v.search.asked import Asked, open_record, repeated
from shortcutv2v.search.choose import searched
from shortcutv2v.search.contest import in_words
from shortcutv2v.search.film import sample_of
from shortcutv2v.search.record import Record
from shortcutv2v.summary import percentile
from shortcutv2v.translate import Translator, from_uint8

__all__ = ["auto"]


def auto(
    teacher: Adapter | nn.Module,
    film: str | Path,
    out: str | Path,
    *,
    quality: str | float | None = None,
    speed: float | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    block: str | Path | None = None,
    folder: str | Path | None = None,
    plan: str | Path | None = None,
    size: int | tuple[int, int] | None = None,
    start: int = 0,
    stop: int | None = None,
    crf: float = 16,
    audio: bool = True,
    report: bool = True,
) -> dict[str, Any]:
    """Translate a film with a network as fast as a quality allows: search cut, block and width on this very film.

    It prints each decision with its reason, and spends on the search what pays: for a short film nothing, and then
    features are reused, or the teacher does every frame.

    Args:
        teacher: the adapter, which needs no cut, or a network that takes and gives frames in [0, 1].
        film: video file or folder of frames.
        out: target, as `video.convert` takes it.
        quality: PSNR in dB to the teacher that 95 % of the shortcut frames shall hold, such as 40 or "40dB@99%".
            Default: 40, if no speed is given.
        speed: instead of a quality, times as fast as the teacher, at the best quality that allows.
        minutes: of the search, features included. Default: what pays, at most 30.
        steps: of training in all instead of a time, the same for every machine; mostly for tests.
        block: folder of a trained block, which is tried beside the others.
        folder: where `auto.json`, the block and the report go; default: beside `out`, with the suffix `.auto`. A
            search that was killed goes on from it.
        plan: an `auto.json`, to repeat its choice without a search, on this film or another.
        size: read the film at this size, see `video.open`.
        start: first frame.
        stop: the frame to stop before.
        crf: see `video.create`.
        audio: keep the sound.
        report: write `report.html`; it needs the extra `show`.

    Returns:
        The content of `auto.json`: `setting`, `steps` (what was measured), `seconds` of each step, `choice`, `film`.

    Raises:
        InputError: an argument is out of range, `folder` holds another search, or `plan` is of another network.
        VideoError: the film cannot be read, or the target not be written.

    Examples:
        ```python
        shortcutv2v.auto(network, "clip.mp4", "faster.mp4", quality=40)
        ```
    """
    adapter = teacher if isinstance(teacher, Adapter) else Adapter(teacher)
    place = Path(out).with_suffix(".auto") if folder is None else Path(folder)
    asked = Asked(quality, speed, minutes, steps, block)
    with video.open(film, size=size, start=start, stop=stop) as clip:
        frames = _frames(Path(film), size, start, stop)
        check_adapter(adapter, from_uint8(frames[0], adapter.teacher))
        record: Record | None = None
        if plan is None:
            with only_run_in(checked_folder(place)):
                record = open_record(place, adapter, [Path(film)], asked, [size, start, stop])
                model, data = searched(adapter, [frames], asked, record)[0], record.data
        else:
            data = Record.read(Path(plan))
            asked = Asked(quality, speed) if quality or speed else Asked(**data["setting"]["goal"])
            model = repeated(data, Path(plan), adapter)
        begun = time.perf_counter()
        translator = Translator(adapter, model, lookahead=True, **({} if model is None else asked.stream))
        video.convert(clip, out, translator, crf=crf, audio=audio)
        data["film"] = _told(translator, Path(out), time.perf_counter() - begun, data, record)
        if model is not None:
            sample = _Sample(sample_of(frames), start, float(clip.rate), Path(film).name)
            page = checked_folder(place) / "report.html" if report else None
            data["film"]["sample"] = sample.compared(model, adapter, asked, page)
        if record is not None:
            record.write()
    return data


def _frames(film: Path, size: int | tuple[int, int] | None, start: int, stop: int | None) -> FrameSource:
    """Return the film as a clip with random access."""
    frames = video.Frames(film, size=size)
    end = len(frames) if stop is None else min(stop, len(frames))
    return frames if (start, end) == (0, len(frames)) else Part(frames, start, end)


def _told(
    translator: Translator, out: Path, seconds: float, data: Mapping[str, Any], record: Record | None
) -> dict[str, Any]:
    """Say how the translation went; return it as plain values."""
    frames = translator.frames
    if translator.stream is None:
        say(f"{out}: {frames} frames in {in_words(seconds)}, all by the teacher")
        return {"frames": frames, "seconds": seconds, "speed": 1.0}
    speed = translator.stream.record.speed
    say(f"{out}: {translator.stream.summary()}; {in_words(seconds)}")
    if record is not None and speed:
        teacher = data["steps"]["look"]["seconds"]
        saved = teacher * (1 - 1 / speed)
        pays = f"; all of it pays from {record.spent / saved:.0f} frames on" if saved > 0 else ""
        say(
            f"in all {in_words(record.spent + seconds)}, {in_words(record.spent)} of them for the search; the teacher "
            f"alone {in_words(teacher * frames)}{pays}"
        )
    return {"frames": frames, "seconds": seconds, "speed": speed, "refreshes": dict(translator.stream.record.refreshes)}


@dataclass(frozen=True)
class _Sample:
    """Frames from the middle of the film.

    Attributes:
        part: of the film.
        start: number of the film's first frame in its file.
        rate: frames per second.
        title: of the report.
    """

    part: Part
    start: int
    rate: float
    title: str

    def compared(
        self, model: ShortcutV2V, adapter: Adapter, asked: Asked, page: Path | None
    ) -> dict[str, float | None] | None:
        """Compare the sample with the teacher, and write the report about it; None without a shortcut frame."""
        first, count = self.start + self.part.start, len(self.part)
        said = f"sample: frames {first} to {first + count - 1}"
        drawn = page if all(map(importlib.util.find_spec, ("matplotlib", "PIL"))) else None
        try:
            scores = self._scores(model, adapter, asked, drawn)
            values = [score.psnr["ours"] for score in scores.at()]
        except InputError:  # not one shortcut frame
            say(f"{said} were all left to the teacher")
            return None
        low, wanted = percentile(values, 0.05), parse_quality(asked.quality) if asked.quality else None
        held = None if wanted is None else fmean(value >= wanted[0] for value in values)
        held_said = "" if held is None or wanted is None else f"; {held:.0%} hold {wanted[0]:g} dB"
        say(
            f"{said} beside the teacher: mean {fmean(values):.1f} dB, 95 % at least {low:.1f} dB{held_said}; "
            f"{scores.speed:.2f}x as fast"
        )
        if page is not None:
            say(f"report: {page}" if drawn else "no report: it needs pip install 'shortcutv2v[show]'")
        numbers = {"mean": fmean(values), "low": low, "held": held, "speed": scores.speed}
        return {**numbers, "start": first, "frames": count}

    def _scores(self, model: ShortcutV2V, adapter: Adapter, asked: Asked, page: Path | None) -> Scores:
        """Measure, with a page or without."""
        frames = [self.part[number] for number in range(len(self.part))]
        if page is None:
            return measure(model, adapter, frames, ["psnr"], lookahead=True, **asked.stream)
        setting, goals = Setting(self.rate, adapter), {str(asked): asked.stream}
        options: dict[str, Any] = {"title": self.title, "start": self.start + self.part.start, "goals": goals}
        return write_report(model, adapter, frames, page, setting=setting, lookahead=True, **options).scores
