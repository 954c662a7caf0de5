"""`auto()`: from a network and a film to a faster film; `tune()`: what every choice is worth on some clips."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from shortcutv2v.distill.clips import FrameSource, Part, open_clips
from shortcutv2v.errors import InputError
from shortcutv2v.measure import Scores, Setting, measure
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.report import write_report
from shortcutv2v.search.asked import Asked, open_record
from shortcutv2v.search.choose import chosen_model, repeated, searched
from shortcutv2v.search.decide import in_words
from shortcutv2v.search.film import samples_of
from shortcutv2v.search.table import HEADINGS, Row, drawable, sections, write_page
from shortcutv2v.show.page import markdown
from shortcutv2v.summary import percentile
from shortcutv2v.translate import Translator, from_uint8
from shortcutv2v.video import find_clips

__all__ = ["PAGE", "auto", "tune"]

PAGE = "tune.html"


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
    asked, record = Asked(quality, speed, minutes, steps, block), None
    with video.open(film, size=size, start=start, stop=stop) as clip:
        frames = _frames(Path(film), size, start, stop)
        check_adapter(adapter, from_uint8(frames[0], adapter.teacher))
        if plan is None:
            with only_run_in(checked_folder(place)):
                record = open_record(place, adapter, [Path(film)], asked, [size, start, stop])
                searched(adapter, [frames], asked, record, memory=False)
            data, model = record.data, chosen_model(record.data, place, adapter)
        else:
            data = repeated(Path(plan), adapter)
            asked = Asked(quality, speed) if quality or speed else Asked(**data["setting"]["goal"])
            model = chosen_model(data, Path(plan).parent, adapter)
        begun = time.perf_counter()
        translator = Translator(adapter, model, lookahead=True, **({} if model is None else asked.stream))
        video.convert(clip, out, translator, crf=crf, audio=audio)
        look, spent = data["steps"].get("look", {"seconds": 0.0}), 0.0 if record is None else record.spent
        data["film"] = _told(translator, Path(out), time.perf_counter() - begun, look["seconds"], spent)
        page = checked_folder(place) / "report.html" if report else None
        if model is not None:
            sample = _Sample(adapter, samples_of([frames], 1)[0], start, float(clip.rate), Path(film).name)
            data["film"]["sample"] = sample.compared(model, asked, data, page)
        if page is not None and (model is None or data["film"]["sample"] is None):
            write_page(Path(film).name, data, page)
        if record is not None:
            record.put()
    return data


def tune(
    teacher: Adapter | nn.Module,
    clips: str | Path | Sequence[str | Path],
    *,
    quality: str | float | None = None,
    speed: float | None = None,
    minutes: float | None = 10.0,
    steps: int | None = None,
    folder: str | Path = "tuned",
    size: int | tuple[int, int] | None = None,
) -> list[Row]:
    """Search as `auto` does, over several clips, and print what every choice is worth; nothing is translated.

    Args:
        teacher: the adapter, which needs no cut, or a network that takes and gives frames in [0, 1].
        clips: video files, folders of videos, or folders of frames.
        quality: candidates are judged by their time at this quality; default: 40 dB, if no speed is given.
        speed: candidates are judged by their quality at this speed.
        minutes: of the search.
        steps: of training in all, instead of a time.
        folder: where `auto.json`, the block of the best choice and `tune.html` go. `auto --plan` takes the file.
        size: read clips at this size.

    Returns:
        One row per choice and interval, the fastest first. The table is printed, and drawn in `tune.html`.

    Raises:
        InputError: an argument is out of range, `folder` holds another search, or the teacher cannot be cut.
        VideoError: no clip can be read.

    Examples:
        ```python
        rows = shortcutv2v.tune(network, ["one.mp4", "other.mp4"], minutes=20)
        best = [row for row in rows if not row.dominated]
        ```
    """
    adapter = teacher if isinstance(teacher, Adapter) else Adapter(teacher)
    asked = Asked(quality, speed, None if steps is not None else minutes, steps)
    paths = find_clips([Path(clips)] if isinstance(clips, str | Path) else list(map(Path, clips)), min_frames=2)
    opened = open_clips(list(paths), size)
    check_adapter(adapter, from_uint8(opened[0][0], adapter.teacher))
    with only_run_in(checked_folder(folder)):
        record = open_record(Path(folder), adapter, paths, asked, [size, 0, None])
        searched(adapter, opened, asked, record, memory=True)
    rows = [Row(**row) for row in record.data.get("rows", ())]
    if not rows:
        raise InputError("there is nothing to tune: give a PSNR below lossless, and a teacher that can be cut")
    say("\n".join(markdown([HEADINGS, *(row.cells() for row in rows)])))
    write_page("tune", record.data, Path(folder) / PAGE)
    return rows


def _frames(film: Path, size: int | tuple[int, int] | None, start: int, stop: int | None) -> FrameSource:
    """Return the film as a clip with random access."""
    frames = video.Frames(film, size=size)
    end = len(frames) if stop is None else min(stop, len(frames))
    return frames if (start, end) == (0, len(frames)) else Part(frames, start, end)


def _told(translator: Translator, out: Path, seconds: float, teacher: float, spent: float) -> dict[str, Any]:
    """Say how the translation went, and from how many frames on search and translation pay; return it as plain values.

    Args:
        translator: that made the film.
        out: the film.
        seconds: that it took.
        teacher: seconds of a teacher frame.
        spent: seconds of the search; 0 if there was none.
    """
    found: dict[str, Any] = {"frames": translator.frames, "seconds": seconds, "speed": 1.0}
    if translator.stream is None:
        say(f"{out}: {translator.frames} frames in {in_words(seconds)}, all by the teacher")
        return found
    record = translator.stream.record
    say(f"{out}: {translator.stream.summary()}; {in_words(seconds)}")
    if spent and record.speed:
        saved = teacher * (1 - 1 / record.speed)
        pays = f"; all of it pays from {spent / saved:.0f} frames on" if saved > 0 else ""
        say(
            f"in all {in_words(spent + seconds)}, {in_words(spent)} of them for the search; the teacher alone "
            f"{in_words(teacher * translator.frames)}{pays}"
        )
    return {**found, "speed": record.speed, "refreshes": dict(record.refreshes)}


@dataclass(frozen=True)
class _Sample:
    """Frames from the middle of the film: the part, its film's first frame in the file, rate, and title of a report."""

    adapter: Adapter
    part: Part
    start: int
    rate: float
    title: str

    def compared(
        self, model: ShortcutV2V, asked: Asked, data: Mapping[str, Any], page: Path | None
    ) -> dict[str, float | None] | None:
        """Compare the sample with the teacher, and write the report about it; None without a shortcut frame."""
        first, count = self.start + self.part.start, len(self.part)
        said, drawn = f"sample: frames {first} to {first + count - 1}", page is not None and drawable()
        try:
            scores = self._scores(model, asked, data, page if drawn else None)
            values = [score.psnr["ours"] for score in scores.at()]
        except InputError:  # not one shortcut frame
            say(f"{said} were all left to the teacher")
            return None
        mean, low, wanted = fmean(values), percentile(values, 0.05), asked.decibels
        held = None if wanted is None else fmean(value >= wanted for value in values)
        held_said = "" if held is None else f"; {held:.0%} hold {wanted:g} dB"
        say(
            f"{said} beside the teacher: mean {mean:.1f} dB, 95 % at least {low:.1f} dB{held_said}; "
            f"{scores.speed:.2f}x as fast"
        )
        if page is not None:
            say(f"report: {page}" if drawn else "no report: it needs pip install 'shortcutv2v[show]'")
        return {"mean": mean, "low": low, "held": held, "speed": scores.speed, "start": first, "frames": count}

    def _scores(self, model: ShortcutV2V, asked: Asked, data: Mapping[str, Any], page: Path | None) -> Scores:
        """Measure, with a page or without."""
        frames = [self.part[number] for number in range(len(self.part))]
        if page is None:
            return measure(model, self.adapter, frames, ["psnr"], lookahead=True, **asked.stream)
        about: dict[str, Any] = {"title": self.title, "start": self.start + self.part.start, "extra": sections(data)}
        about |= {"goals": {str(asked): asked.stream}, "setting": Setting(self.rate, self.adapter)}
        return write_report(model, self.adapter, frames, page, lookahead=True, **about).scores
