"""The search up to training: look at film and teacher, rank cuts, work out what training may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.blocks import DEFAULT_VARIANT
from shortcutv2v.blocks.reuse import ReuseBlock
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.measure.advice import Times
from shortcutv2v.measure.cost import cost
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.quality import Calibration
from shortcutv2v.search import decide
from shortcutv2v.search.asked import Asked
from shortcutv2v.search.decide import Goal, Worth
from shortcutv2v.search.field import Candidate, cuts_of, timed
from shortcutv2v.search.film import HELD, LEARN, HeldOut, Stretches
from shortcutv2v.search.record import Record
from shortcutv2v.translate import from_uint8

__all__ = ["Entry", "Search", "in_words", "mean_at"]

_LEAST, _MOST = 60.0, 1800.0
"""Seconds of training, at least, and of a search, at most, if no time is given."""
_CUTS, _TRAINED = 4, 3
"""Cuts that are tried on the film, and cuts of which blocks are trained, at most."""
_TRYING = 20
"""Teacher frames that take as long as trying a cut, about."""
_ALONE, _GIVEN = 0.05, 0.25
"""Share of the teacher's time for the film, or of the minutes given, that trying cuts may take."""
_WIDTHS = (2, 4)
"""Widths of the blocks that are trained: those of `f` divided by these."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A candidate with what was measured of it.

    Attributes:
        candidate: cut and block.
        times: seconds of its parts.
        curves: see `decide.Curves`.
        calibration: of the block on the held-out frames; None if too little moves, or before it is trained.
        trained: seconds, or steps, of its training so far.
    """

    candidate: Candidate
    times: Times
    curves: Sequence[Sequence[float]]
    calibration: Mapping[str, Any] | None = None
    trained: float = 0.0

    @property
    def margin(self) -> float:
        """Decibels by which a stream's estimates may be too good at its beginning."""
        return (Calibration.from_recipe(self.calibration) or Calibration()).margin

    @property
    def place(self) -> str:
        """The layers of the cut."""
        return f"{self.candidate.enc} to {self.candidate.dec}"

    def __str__(self) -> str:
        name = self.candidate.name
        return f"reuse of features at cut {name}" if self.candidate.variant == ReuseBlock.variant else name


@dataclass
class Search:
    """A search over the cuts, blocks and widths of a teacher on some clips.

    Everything that is measured goes through the record, and every decision is a function of what is there. So a search
    that was killed repeats its decisions, and goes on where it was.

    Args:
        adapter: of the teacher.
        clips: the film, or several.
        goal: that choices are judged by.
        asked: limits of the search.
        record: of this search; features and checkpoints lie in its folder.
    """

    adapter: Adapter
    clips: Sequence[FrameSource]
    goal: Goal
    asked: Asked
    record: Record
    _bases: dict[str, ShortcutV2V] = field(default_factory=dict)

    @property
    def forced(self) -> bool:
        """True if the user has said how long to search, so that it need not pay."""
        return self.asked.minutes is not None or self.asked.steps is not None

    @property
    def frames(self) -> int:
        """Frames of all clips."""
        return sum(len(clip) for clip in self.clips)

    @property
    def frame(self) -> Tensor:
        """A frame from the middle of the first clip, uint8 (3, H, W)."""
        return self.clips[0][len(self.clips[0]) // 2]

    @cached_property
    def stretches(self) -> Stretches:
        """The parts of the clips that are learnt from, and held out."""
        return Stretches.of(self.clips, max(4 if self.forced else 1, min(12, self.frames // 250)))

    @cached_property
    def held_out(self) -> HeldOut:
        """The held-out frames."""
        return HeldOut(self.adapter, self.stretches.held)

    @cached_property
    def teacher(self) -> float:
        """Seconds of a teacher frame."""
        found = self.record.once("look", self._look)
        height, width = self.frame.shape[-2:]
        alone = found["seconds"] * self.frames
        say(
            f"look: {self.frames} frames of {width}x{height}; a frame takes the teacher "
            f"({type(self.adapter.teacher).__name__}, {found['macs'] / 1e9:.3g} G multiply-adds) "
            f"{1e3 * found['seconds']:.3g} ms, all of them {in_words(alone)}"
        )
        return float(found["seconds"])

    def _look(self) -> dict[str, float]:
        args, kwargs = self.adapter.example(from_uint8(self.frame, self.adapter.teacher))
        seconds = timed(self.adapter, self.frame, {})["teacher"].teacher
        return {"seconds": seconds, "macs": cost(self.adapter.teacher, *args, **kwargs).macs}

    def cuts(self) -> list[Candidate]:
        """Return the cuts that are worth trying on the film, the one that runs least of the teacher first."""
        _ = self.teacher
        found = [Candidate(**one) for one in self.record.once("cuts", lambda: list(map(asdict, self._cuts())))]
        time = _ALONE * self.frames * self.teacher if self.asked.minutes is None else _GIVEN * 60 * self.asked.minutes
        count = _CUTS if self.asked.steps else max(1, min(_CUTS, int(time / (_TRYING * self.teacher))))
        for number, cut in enumerate(found):
            reach = "" if cut.reach is None else f", the rest looks {cut.reach} pixels around a place"
            said = f"cut {cut.name}: head and tail take {cut.kept:.0%} of the multiply-adds{reach}"
            say(said if number < count else f"{said}; left out, {count} of {len(found)} are tried on such a film")
        return found[:count]

    def _cuts(self) -> list[Candidate]:
        return cuts_of(self.adapter, self.frame)

    def entries(self, cuts: Sequence[Candidate]) -> list[Entry]:
        """Measure cuts on the film: reuse of features on held-out frames, and times with each block."""
        blocks = [cut.block(DEFAULT_VARIANT, divide) for cut in cuts for divide in _WIDTHS]
        seen = {cut.name: self.record.once(f"reuse at {cut.name}", partial(self._reuse, cut)) for cut in cuts}
        times = self.record.once("times", lambda: self._times([*cuts, *blocks]))
        reuse = [Entry(cut, self.scaled(times[cut.name]), **seen[cut.name]) for cut in cuts]
        for entry in reuse:
            limit = entry.times.teacher / (entry.times.head + entry.times.tail)
            say(
                f"cut {entry.candidate.name}: head {1e3 * entry.times.head:.3g} ms, tail {1e3 * entry.times.tail:.3g} "
                f"ms, at most {limit:.2f}x as fast; features of the frame before hold {mean_at(entry.curves, 1):.1f} dB"
            )
        place = {entry.candidate.enc + entry.candidate.dec: entry for entry in reuse}
        trained = [
            Entry(block, self.scaled(times[block.name]), place[block.enc + block.dec].curves) for block in blocks
        ]
        return [*reuse, *trained]

    def scaled(self, times: Mapping[str, Any]) -> Times:
        """Return times in units of this machine's pace at the first look: it may have been busier since."""
        factor = self.teacher / times["teacher"]
        return Times(**{name: factor * value for name, value in times.items() if name != "narrow"})

    def _reuse(self, cut: Candidate) -> dict[str, Any]:
        return self.held_out.judge(self.base(cut))

    def _times(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        models = {one.name: one.on(self.base(one)) for one in candidates}
        return {name: asdict(times) for name, times in timed(self.adapter, self.frame, models).items()}

    def base(self, candidate: Candidate) -> ShortcutV2V:
        """Return the model at the candidate's cut whose capture all blocks of that cut share."""
        key = candidate.enc + candidate.dec
        if key not in self._bases:
            self._bases[key] = candidate.wrap(self.adapter, self.frame)
        return self._bases[key]

    def worth(self, entry: Entry, goal: Goal | None = None) -> Worth:
        """Predict time and quality of the clips with a candidate as it is now."""
        return decide.worth(entry.times, entry.curves, goal or self.goal, self.frames, entry.margin)

    def key(self, worth: Worth) -> tuple[float, float]:
        """Return what candidates are sorted by, the best first."""
        return worth.key(self.goal, self.frames, self.teacher)

    def hoped(self, entry: Entry) -> Worth:
        """Predict the same after training, from reuse alone."""
        margin = Calibration().margin
        return decide.worth(entry.times, decide.expected(entry.curves), self.goal, self.frames, margin)

    def promising(self, ready: Sequence[Entry], blocks: Sequence[Entry]) -> list[Entry]:
        """Return the blocks to train, the best hope first, at a few cuts; leave out cuts that cannot be the best.

        Args:
            ready: what can be used as it is.
            blocks: untrained blocks.
        """
        order = sorted(blocks, key=lambda entry: (*self.key(self.hoped(entry)), entry.candidate.reach or 0))
        hopes = [self.worth(entry).seconds for entry in ready] + [self.hoped(entry).seconds for entry in order]
        best, cuts, kept = min(hopes, default=0.0), list[str](), list[Entry]()
        for entry in order:
            cut = entry.place
            if self.goal.quality is not None and decide.hopeless(entry.times, self.goal, self.frames, best):
                say(f"{entry}: not trained, head and tail alone are slower than the best hope, {in_words(best)}")
            elif cut in cuts or len(cuts) < _TRAINED:
                cuts = [*cuts, *([] if cut in cuts else [cut])]
                kept.append(entry)
        return kept

    def price(self, alternative: float, field: Sequence[Entry]) -> decide.Budget:
        """Work out what the search may cost, given the film's seconds without one."""
        hope = self.hoped(field[0]).seconds
        least = _LEAST + (2 * LEARN + HELD) * self.teacher
        found = decide.budget(self.frames, alternative / self.frames, hope / self.frames, least, _MOST)
        pays = "never pays" if found.break_even is None else f"pays from about {found.break_even} frames on"
        said = (
            f"price: a block should make the film take {in_words(hope)} instead of {in_words(alternative)}; training "
            f"one takes {in_words(least)} at least, so it {pays}"
        )
        if self.asked.minutes is not None:
            spent = self.record.once("spent", lambda: self.record.spent)
            found = decide.Budget(max(30 * self.asked.minutes, 60 * self.asked.minutes - spent), found.break_even)
            said += f"; {self.asked.minutes:g} minutes were given"
        elif self.asked.steps is not None:
            found = decide.Budget(_MOST, found.break_even)
            said += f"; {self.asked.steps} steps were given"
        elif found.seconds:
            said += f": at most {in_words(found.seconds)} are spent"
        else:
            said += f": with {self.frames} frames it does not"
        say(said)
        return found

    @property
    def folder(self) -> Path:
        """Folder of features, checkpoints and blocks."""
        return self.record.path.parent / "search"

    def place(self, candidate: Candidate) -> Path:
        """Return the folder of a candidate's checkpoints and of its block."""
        return self.folder / re.sub(r"\W+", "-", candidate.name).strip("-")


def mean_at(curves: Sequence[Sequence[float]], distance: int) -> float:
    """Return the mean PSNR in dB at a distance from the reference, counted from 1; the last one of shorter curves."""
    return fmean(curve[min(distance, len(curve)) - 1] for curve in curves)


def in_words(seconds: float) -> str:
    """Return a time as text, in seconds or minutes."""
    return f"{seconds:.1f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"
