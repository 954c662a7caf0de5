"""The choice: what is ready without training, whether a search pays, and what won."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from shortcutv2v import checkpoint
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.blocks.reuse import ReuseBlock
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.goals import policy_for
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.quality import Calibration
from shortcutv2v.search import decide
from shortcutv2v.search.asked import BLOCK, Asked
from shortcutv2v.search.contest import Entry, Search, in_words, mean_at
from shortcutv2v.search.decide import Worth, film_seconds
from shortcutv2v.search.field import Candidate, timed
from shortcutv2v.search.film import samples_of
from shortcutv2v.search.record import Record
from shortcutv2v.search.rounds import contest
from shortcutv2v.translate import Translator

__all__ = ["searched", "tried"]

_GAIN = 1.05
"""Times as fast as the teacher that a choice must be, at least."""
_GIVEN = "given"


def searched(
    adapter: Adapter, clips: Sequence[FrameSource], asked: Asked, record: Record
) -> tuple[ShortcutV2V | None, Search | None, list[Entry]]:
    """Search, save the choice, and return the model to translate with.

    Returns:
        The model, None if the teacher shall do every frame; the search, None if it is lossless; and all candidates.
    """
    goal, search, entries = asked.goal(adapter), None, list[Entry]()
    if goal is None:
        choice = _decided("teacher", "lossless was asked for, which is the teacher itself")
    else:
        search = Search(adapter, clips, goal, asked, record)
        entries = _compete(search)
        choice = _choice(search, entries)
    record.put(choice=choice)
    say(f"choice: {choice['why']}")
    model = None if choice["kind"] == "teacher" else checkpoint.load(record.path.parent / BLOCK, adapter.teacher)
    return model, search, entries


def _compete(search: Search) -> list[Entry]:
    """Measure what is ready, and train blocks if that pays; return all of it, with equal candidates in any order."""
    cuts = search.cuts()
    given = [] if search.asked.block is None else [_given(search, Path(search.asked.block))]
    entries = search.entries(cuts) if cuts else []
    ready = [*given, *entries[: len(cuts)]]
    field = search.promising([*ready, *entries[len(cuts) :]], entries[len(cuts) :])
    alone = search.frames * search.teacher
    now = min([alone, *(search.worth(entry).seconds for entry in ready if search.goal.speed is None)])
    budget = search.price(now, field) if field and search.stretches.learn else None
    return [*(contest(search, field, budget.seconds) if budget and budget.seconds else []), *ready]


def _choice(search: Search, entries: Sequence[Entry]) -> dict[str, Any]:
    """Choose the best candidate, and save its block."""
    alone = search.frames * search.teacher
    limit = max((e.times.teacher / (e.times.head + e.times.tail) for e in entries), default=0.0)
    if limit < _GAIN:
        reason = f"no cut makes a frame more than {limit:.2f}x as fast" if entries else "no cut leaves work out"
        return _decided("teacher", f"nothing to gain, {reason}: the teacher does every frame")
    order = sorted(entries, key=lambda entry: search.key(search.worth(entry)))
    worth = {entry: search.worth(entry) for entry in order[:1]}
    if any(entry.trained for entry in entries):
        finalists = [next((one for one in order if (one.trained > 0) == trained), None) for trained in (True, False)]
        worth = {entry: tried(search, entry) for entry in finalists if entry is not None}
    best = min(worth, key=lambda entry: search.key(worth[entry]))
    if worth[best].seconds > alone / _GAIN:
        first = max(mean_at(entry.curves, 1) for entry in entries)
        why = (
            f"nothing to gain, none of {len(entries)} candidates makes {search.asked} faster than the teacher: a frame "
            f"can be {limit:.2f}x as fast, and has {first:.1f} dB after a refresh, at best; the teacher does all"
        )
        return _decided("teacher", why)
    found: dict[str, Any] = search.record.once("saved", lambda: _saved(search, best, worth[best]))
    return found


def tried(search: Search, entry: Entry) -> Worth:
    """Play stretches of all clips with a candidate, and predict the film from the refreshes that they took."""
    played = search.record.once(f"trial of {entry}", partial(_played, search, entry))
    share, frames = decide.refreshes_of(played), sum(each["frames"] for each in played)
    worth = replace(search.worth(entry), share=share, seconds=film_seconds(search.frames, entry.times, share))
    say(
        f"trial: {entry} refreshes {share:.0%} of {frames} frames in {len(played)} places at {search.asked}; the film "
        f"in {in_words(worth.seconds)}"
    )
    return worth


def _played(search: Search, entry: Entry) -> list[dict[str, int]]:
    """Play each stretch as a video of its own; count its frames, its shortcut frames and the audit that begins it."""
    found = []
    for part in samples_of(search.clips):
        translator = Translator(search.adapter, _model(search, entry), lookahead=True, **search.asked.stream)
        frames = sum(1 for _ in translator.play(part[number] for number in range(len(part))))
        stream = translator.stream
        assert stream is not None  # noqa: S101 (there is a model)
        begun = min(1, stream.refreshes["audit"])
        found.append({"start": part.start, "frames": frames, "shortcuts": stream.shortcuts, "begun": begun})
    return found


def _decided(kind: str, why: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "why": why, "block": None if kind == "teacher" else BLOCK, **more}


def _given(search: Search, block: Path) -> Entry:
    """Measure a block that is trained already."""

    def measured() -> dict[str, Any]:
        model = checkpoint.load(block, search.adapter.teacher)
        times = asdict(timed(search.adapter, search.frame, {"": model})[""])
        return {"judged": search.held_out.judge(model), "times": times}

    found = search.record.once("given block", measured)
    candidate = Candidate("the given block", "", "", variant=_GIVEN)
    return Entry(candidate, search.scaled(found["times"]), **found["judged"])


def _model(search: Search, entry: Entry) -> ShortcutV2V:
    """Return the model of a candidate, with its calibration on this film and the goal as its policy."""
    if entry.candidate.variant == ReuseBlock.variant:
        model = search.base(entry.candidate)
    else:
        given = entry.candidate.variant == _GIVEN
        source = Path(str(search.asked.block)) if given else search.place(entry.candidate) / BLOCK
        model = checkpoint.load(source, search.adapter.teacher)
    known = Calibration.from_recipe(entry.calibration) or model.calibration or Calibration()
    model.calibration = known.with_look((entry.times.block + entry.times.tail) / entry.times.teacher)
    model.refresh = policy_for(model.refresh, model.horizon, model.calibration, **search.asked.stream)
    return model


def _saved(search: Search, entry: Entry, worth: Worth) -> dict[str, Any]:
    """Save the chosen block; return the choice."""
    _model(search, entry).save(search.record.path.parent / BLOCK)
    kind = {_GIVEN: "given block", ReuseBlock.variant: "reuse"}.get(entry.candidate.variant, "trained block")
    speed = search.frames * search.teacher / worth.seconds
    why = f"{entry}, predicted {speed:.2f}x as fast with {worth.share:.0%} refreshes at {search.asked}"
    predicted = {**asdict(worth), "speed": speed}
    return _decided(kind, why, candidate=asdict(entry.candidate), trained=entry.trained, predicted=predicted)
