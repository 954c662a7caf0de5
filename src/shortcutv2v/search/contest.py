"""The search up to training: look at film and teacher, rank cuts, work out what training may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shortcutv2v import checkpoint
from shortcutv2v.adapter import Adapter
from shortcutv2v.bar import say
from shortcutv2v.blocks import DEFAULT_VARIANT
from shortcutv2v.blocks.reuse import ReuseBlock
from shortcutv2v.distill.clips import FrameSource
from shortcutv2v.goals import policy_for
from shortcutv2v.measure.advice import Times
from shortcutv2v.measure.cost import cost
from shortcutv2v.model import ShortcutV2V
from shortcutv2v.quality import Calibration
from shortcutv2v.search import decide
from shortcutv2v.search.asked import Asked, Record
from shortcutv2v.search.decide import Goal, Worth, in_words, mean_at
from shortcutv2v.search.field import Candidate, cuts_of, timed
from shortcutv2v.search.film import HELD, LEARN, HeldOut, stretches
from shortcutv2v.translate import from_uint8

__all__ = ["BLOCK", "GIVEN", "Entry", "Search"]

BLOCK, GIVEN = "block", "given"
"""Folder of a candidate's block, and the variant of a block that the user gave."""
LIFT = 6.0
"""dB that a block gains over reuse in minutes: 5.9 to 7.8 on the four clips of docs/quality.md."""
_LEAST, _MOST = 60.0, 1800.0
"""Seconds of training, at least, and of a search, at most, if no time is given."""
_LEAST_CUTS, _CUTS, _TRAINED = 2, 4, 3
"""Cuts that are tried on the film, at least and at most, and cuts of which blocks are trained, at most."""
_TRYING = 10
"""Teacher frames that take as long as trying one cut more, about: the held-out pictures are made once for all."""
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
        left: why it left the contest; empty if it did not.
    """

    candidate: Candidate
    times: Times
    curves: Sequence[Sequence[float]]
    calibration: Mapping[str, Any] | None = None
    trained: float = 0.0
    left: str = ""

    @property
    def limit(self) -> float:
        """Times as fast as the teacher that head and tail alone would be."""
        return self.times.teacher / (self.times.head + self.times.tail)

    def __str__(self) -> str:
        name = self.candidate.name
        return f"reuse of features at cut {name}" if self.candidate.variant == ReuseBlock.variant else name


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

    Attributes:
        frames: frames of all clips.
        frame: from the middle of the first clip, uint8 (3, H, W).
        learn: parts of the clips to learn from.
        held_out: frames that no candidate learns from.
        teacher: seconds of a teacher frame.
        folder: of features, checkpoints and blocks.
    """

    def __init__(
        self, adapter: Adapter, clips: Sequence[FrameSource], goal: Goal, asked: Asked, record: Record
    ) -> None:
        self.adapter, self.clips, self.goal, self.asked, self.record = adapter, clips, goal, asked, record
        self.frames, self.frame = sum(map(len, clips)), clips[0][len(clips[0]) // 2]
        forced = asked.minutes is not None or asked.steps is not None  # it need not pay
        self.learn, held = stretches(clips, max(4 if forced else 1, min(12, self.frames // 250)))
        self.held_out, self.folder = HeldOut(adapter, held), record.path.parent / "search"
        self._bases: dict[str, ShortcutV2V] = {}
        found, (height, width) = record.once("look", self._look), self.frame.shape[-2:]
        self.teacher: float = found["seconds"]
        say(
            f"look: {self.frames} frames of {width}x{height}; a frame takes the teacher "
            f"({type(adapter.teacher).__name__}, {found['macs'] / 1e9:.3g} G multiply-adds) "
            f"{1e3 * self.teacher:.3g} ms, all of them {in_words(self.alone)}"
        )

    @property
    def alone(self) -> float:
        """Seconds that the teacher alone takes for all frames."""
        return self.frames * self.teacher

    def _look(self) -> dict[str, float]:
        args, kwargs = self.adapter.example(from_uint8(self.frame, self.adapter.teacher))
        seconds = timed(self.adapter, self.frame, {})["teacher"].teacher
        return {"seconds": seconds, "macs": cost(self.adapter.teacher, *args, **kwargs).macs}

    def _cuts(self) -> list[Candidate]:
        """Return the cuts that are worth trying on the film, the one that runs least of the teacher first."""
        saved = self.record.once("cuts", lambda: [asdict(cut) for cut in cuts_of(self.adapter, self.frame)])
        found, minutes = [Candidate(**one) for one in saved], self.asked.minutes
        time = _ALONE * self.alone if minutes is None else _GIVEN * 60 * minutes
        count = _CUTS if self.asked.steps else max(_LEAST_CUTS, min(_CUTS, int(time / (_TRYING * self.teacher))))
        for number, cut in enumerate(found):
            reach = "" if cut.reach is None else f", the rest looks {cut.reach} pixels around a place"
            left = "" if number < count else f"; left out, {count} of {len(found)} are tried on such a film"
            say(f"cut {cut.name}: head and tail take {cut.kept:.0%} of the multiply-adds{reach}{left}")
        return found[:count]

    def entries(self) -> tuple[list[Entry], list[Entry]]:
        """Measure on held-out frames what needs no training, and the times of that and of blocks to train.

        Returns:
            The user's block and reuse at each cut; and the untrained blocks, which have the curves of reuse.
        """
        given = [] if self.asked.block is None else [Candidate("the given block", "", "", variant=GIVEN)]
        ready = [*given, *self._cuts()]
        blocks = {cut: [cut.block(DEFAULT_VARIANT, divide) for divide in _WIDTHS] for cut in ready[len(given) :]}
        judged = {one: self.record.once(f"held out: {one.name}", partial(self._judged, one)) for one in ready}
        every = [*ready, *(block for each in blocks.values() for block in each)]
        saved = self.record.once("times", partial(self._times, every)) if every else {}
        # In units of a teacher frame, because this machine may be busier than at the first look.
        times = {name: Times(*(self.teacher / found[0] * value for value in found)) for name, found in saved.items()}
        entries = [Entry(one, times[one.name], **judged[one]) for one in ready]
        for entry in entries:
            given_it, parts = entry.candidate.variant == GIVEN, entry.times
            what = "its frames after a reference" if given_it else "features of the frame before"
            say(
                f"{'' if given_it else 'cut '}{entry.candidate.name}: head {1e3 * parts.head:.3g} ms, tail "
                f"{1e3 * parts.tail:.3g} ms, at most {entry.limit:.2f}x as fast; {what} hold "
                f"{mean_at(entry.curves, 1):.1f} dB"
            )
        return entries, [
            Entry(block, times[block.name], entry.curves)
            for entry in entries
            for block in blocks.get(entry.candidate, ())
        ]

    def _judged(self, candidate: Candidate) -> dict[str, Any]:
        return self.held_out.judge(self.net(candidate))

    def _times(self, candidates: Sequence[Candidate]) -> dict[str, Any]:
        found = timed(self.adapter, self.frame, {one.name: self.net(one) for one in candidates})
        return {name: astuple(times)[:-1] for name, times in found.items()}

    def base(self, candidate: Candidate) -> ShortcutV2V:
        """Return the model at the candidate's cut whose capture all blocks of that cut share."""
        if candidate.place not in self._bases:
            self._bases[candidate.place] = candidate.wrap(self.adapter, self.frame)
        return self._bases[candidate.place]

    def place(self, candidate: Candidate) -> Path:
        """Return the folder of a candidate's checkpoints and of its block."""
        return self.folder / re.sub(r"\W+", "-", candidate.name).strip("-")

    def net(self, candidate: Candidate) -> ShortcutV2V:
        """Return the model of a candidate: as it was given or trained; before training, with a block from seed 0."""
        trained = Path(str(self.asked.block)) if candidate.variant == GIVEN else self.place(candidate) / BLOCK
        if trained.exists() or candidate.variant == GIVEN:
            return checkpoint.load(trained, self.adapter.teacher)
        reuse = candidate.variant == ReuseBlock.variant
        return self.base(candidate) if reuse else candidate.on(self.base(candidate))

    def model(self, entry: Entry) -> ShortcutV2V:
        """Return the model of a candidate, with its calibration on this film and the goal as its policy."""
        model = self.net(entry.candidate)
        known = Calibration.from_recipe(entry.calibration) or model.calibration or Calibration()
        model.calibration = known.with_look((entry.times.block + entry.times.tail) / entry.times.teacher)
        model.refresh = policy_for(model.refresh, model.horizon, model.calibration, **self.asked.stream)
        return model

    def worth(self, entry: Entry, goal: Goal | None = None) -> Worth:
        """Predict time and quality of the clips with a candidate as it is now."""
        margin = (Calibration.from_recipe(entry.calibration) or Calibration()).margin
        return decide.worth(entry.times, entry.curves, goal or self.goal, self.frames, margin)

    def hoped(self, entry: Entry) -> Worth:
        """Predict the same after training, from reuse alone."""
        lifted = [[value + LIFT for value in curve] for curve in entry.curves]
        return decide.worth(entry.times, lifted, self.goal, self.frames, Calibration().margin)

    def key(self, worth: Worth) -> tuple[float, float]:
        """Return what candidates are sorted by, the best first."""
        return worth.key(self.goal, self.frames, self.teacher)

    def promising(self, ready: Sequence[Entry], blocks: Sequence[Entry]) -> list[Entry]:
        """Return the blocks to train, the best hope first, at a few cuts; leave out cuts that cannot be the best.

        Args:
            ready: what can be used as it is.
            blocks: untrained blocks.
        """
        order = sorted(blocks, key=lambda entry: (*self.key(self.hoped(entry)), entry.candidate.reach or 0))
        hopes = [self.worth(entry) for entry in ready] + [self.hoped(entry) for entry in order]
        best, kept = min((hope.seconds for hope in hopes), default=0.0), list[Entry]()
        for entry in order:
            if self.goal.quality is not None and decide.hopeless(entry.times, self.goal, self.frames, best):
                say(f"{entry}: not trained, head and tail alone are slower than the best hope, {in_words(best)}")
            else:
                kept.append(entry)
        cuts = list(dict.fromkeys(entry.candidate.place for entry in kept))[:_TRAINED]
        return [entry for entry in kept if entry.candidate.place in cuts]

    def price(self, ready: Sequence[Entry], field: Sequence[Entry]) -> float:
        """Work out how many seconds the training may take, beside what is ready; 0 if it does not pay."""
        now = min([self.alone, *(self.worth(entry).seconds for entry in ready if self.goal.speed is None)])
        then, least = self.hoped(field[0]).seconds, _LEAST + (2 * LEARN + HELD) * self.teacher
        seconds, pays = decide.budget(self.frames, now / self.frames, then / self.frames, least, _MOST)
        if self.asked.minutes is not None:
            given, spent = 60 * self.asked.minutes, self.record.once("spent", lambda: self.record.spent)
            seconds, end = max(given / 2, given - spent), f"; {self.asked.minutes:g} minutes were given"
        elif self.asked.steps is not None:
            seconds, end = _MOST, f"; {self.asked.steps} steps were given"
        elif seconds:
            end = f": at most {in_words(seconds)} are spent"
        else:
            end = f": with {self.frames} frames it does not"
        say(
            f"price: a block should make the film take {in_words(then)} instead of {in_words(now)}; training one takes "
            f"{in_words(least)} at least, so it "
            f"{'never pays' if pays is None else f'pays from about {pays} frames on'}{end}"
        )
        return seconds
