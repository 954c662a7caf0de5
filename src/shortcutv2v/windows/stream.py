"""Streams that compute windows instead of whole frames, where a camera stands still or little moves.

Per frame and window: *keep* the last output where nothing changed, *predict* it with the block on a crop, or *refresh*
it: run the whole teacher on the crop and patch the reference there. Signals at hand let expect the error of each, see
`worth`; the quality asked for decides. Every refreshed window is an audit of these expectations.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.decibels import error_of
from shortcutv2v.errors import InputError
from shortcutv2v.graph import flatten
from shortcutv2v.quality import Quality
from shortcutv2v.refresh import Every, RefreshPolicy
from shortcutv2v.rows import finite
from shortcutv2v.stream import Stream
from shortcutv2v.summary import KEPT, Summary
from shortcutv2v.types import Reference
from shortcutv2v.windows.levels import Job, Levels
from shortcutv2v.windows.locality import Call, Locality, probe
from shortcutv2v.windows.parts import AUDITED, Guess, Patches, Predictor, measure
from shortcutv2v.windows.plan import Budget, Plan, allowed, planned, rolled, worthwhile
from shortcutv2v.windows.settings import Windows
from shortcutv2v.windows.shown import Shown
from shortcutv2v.windows.times import Times
from shortcutv2v.windows.worth import Gains

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["WindowStream"]

_Made = tuple[Job, list[Tensor]]
"""A refreshed job, and the output's tensors for its crops."""
_CAUTIOUS = 2.0
"""Gain of a change before anything is learnt."""
_AUDIT_EVERY = 2
"""Frames from one refresh of the oldest kept window to the next."""
_DEFAULT_QUALITY = 40.0
_PROBED = 64
"""Side of the windows of a probe, unless the user gives one."""


class WindowStream(Stream):
    """A stream that computes only the windows that need it; made by `ShortcutV2V.stream(windows=...)`.

    The first frame, a frame of another size, one with other conditions, and every frame on which windows would not be
    faster run as in `Stream`. Without a trained block such a frame is the teacher's own, and windows are kept or
    refreshed; so this works without any training.

    Args:
        model: the wrapped teacher; it must be local, which the first frame finds out.
        refresh: decides about whole frames, see `Stream`.
        show_shortcut: must be False: a refreshed window shows the teacher's own output.
        picture: see `Stream`.
        windows: the settings.

    Attributes:
        quality: PSNR in dB to the teacher that the pictures shall hold.
        locality: what the first frame has found: stride and the price of every halo; None before.
        counts: windows so far by what was done: "kept", "predicted", "refreshed".
        estimates: PSNR in dB to the teacher that the latest frames made of windows should have.

    Raises:
        InputError: `show_shortcut` is True; from a frame, the teacher is not local, or the input is a batch.
    """

    def __init__(
        self,
        model: ShortcutV2V,
        refresh: RefreshPolicy | int,
        show_shortcut: bool = False,
        picture: Callable[[Any], Tensor] | None = None,
        windows: Windows | None = None,
    ) -> None:
        if show_shortcut:
            raise InputError("windows show the teacher's own output where they refresh: give show_shortcut=False")
        self.windows = windows or Windows()
        asked = refresh.target if isinstance(refresh, Quality) else _DEFAULT_QUALITY
        self.quality = asked if self.windows.quality is None else self.windows.quality
        self._asked = isinstance(refresh, Quality) or self.windows.quality is not None
        self.locality: Locality | None = None
        self._size: tuple[int, int] | None = None
        self._guesses = self.windows.predict and model.trained_interval is not None
        super().__init__(model, refresh if self._guesses else Every(1), show_shortcut, picture)

    def reset(self) -> None:
        """Forget the video."""
        super().reset()
        self._shown: Shown | None = None
        self._gains, self._trust = Gains(2, gain=_CAUTIOUS), Gains(1)
        self._audited: int | None = None
        self._predictor = Predictor(self.model, self.refresh.interval)
        self._frames = 0
        self.counts: Counter[str] = Counter()
        self.estimates: deque[float] = deque(maxlen=KEPT)

    def summary(self) -> Summary:
        """Return the figures of `Stream.summary()`, and what became of the windows."""
        whole, total = super().summary(), max(1, self.counts.total())
        shares = ", ".join(f"{count / total:.0%} {name}" for name, count in self.counts.items())
        notes = [whole.note, f"windows: {shares or 'none, whole frames were faster'}"]
        estimates = [*self.estimates, *(value for policy in self.policies for value in policy.estimates)]
        made, teacher = self.record.summary("; ".join(filter(None, notes)), estimates), self.record.times[0]
        if made.speed is None or teacher is None:
            return made
        # The only full pass may be the first, which prepares the network: the probe knows better.
        return dataclasses.replace(made, speed=made.speed * min(1.0, self._times.full / teacher))

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output for the next frame, in the teacher's own structure. Takes the teacher's inputs."""
        begun, call = time.perf_counter(), Call(args, kwargs)
        self._prepare(call)
        self._frames += 1
        shown = self._shown
        if shown is None or not shown.serves(call) or not self._frozen.holds():
            return self._whole(call, args, kwargs)
        signals = shown.changes(call, self.halo)
        errors = [self._kept(known, signal) for known, signal in zip(shown.errors, signals, strict=True)]
        plan = self._planned(shown, errors)
        if not self._pays(plan) or not self._run(call, shown, plan, signals, errors):
            return self._whole(call, args, kwargs)
        output, seconds = shown.output(), time.perf_counter() - begun
        self._times.note_frame(seconds)
        self.distances = (max(1, self._predictor.distance),)
        self.record.frame([""], seconds, None)
        self.estimates.append(shown.estimate)
        return output

    def _kept(self, known: float, signal: tuple[float, float]) -> float:
        """Return the error to expect of a kept window, larger by what audits have found estimates to be too low."""
        return max(1.0, self._trust.gains[0]) * (known + self._gains.estimate(signal))

    def _prepare(self, call: Call) -> None:
        """Divide pictures of this size into windows; probe the teacher before the first frame."""
        if self.locality is None:
            self.locality = probe(self.model.teacher, call, self.picture, self.windows.size or _PROBED)
        if self._size != call.size:
            self.halo = self.locality.halo(allowed(self.quality)) if self.windows.halo is None else self.windows.halo
            side, device = self.windows.side(call.size[0], self.halo), call.tensors[call.pictures[0]].device.type
            self._levels = Levels.of(call.size, side, self.halo, self.locality.align, between=device == "cpu")
            self._times = self._timed(device)
            self._size, self._shown, self._measured = call.size, None, False

    def _timed(self, device: str) -> Times:
        assert self.locality is not None  # noqa: S101  (made before)
        return Times(self._levels, self.locality.seconds, self.refresh.interval if self._guesses else 1, device)

    def _planned(self, shown: Shown, errors: Sequence[float]) -> Plan:
        """Return the windows to refresh and to predict, given the errors of keeping them."""
        predictor, windows = self._predictor, range(len(errors))
        plan = planned(errors, [predictor.outlook(window) for window in windows], self._budget)
        if not predictor.known:  # the first predictions are audits
            plan = Plan([*plan.refresh, *plan.predict[AUDITED:]], plan.predict[:AUDITED])
        kept = [window for window in windows if window not in {*plan.refresh, *plan.predict}]
        self._audited = max(kept, key=shown.ages.__getitem__) if kept and self._frames % _AUDIT_EVERY == 0 else None
        if self._audited is not None:
            plan = Plan([*plan.refresh, self._audited], plan.predict)
        if self.windows.rolling:
            return self._rolled(plan, shown, errors)
        return worthwhile(plan, self._levels, self._times, predictor.success) if predictor.known else plan

    def _rolled(self, plan: Plan, shown: Shown, errors: Sequence[float]) -> Plan:
        """Return as many windows to refresh as on every frame, more only for a quality that was asked for."""
        over, predicts = set(self._budget.over(errors)), self._predictor.patches is not None
        if not self._asked:
            plan = Plan([], sorted(over) if predicts else [])
        known, ages = (shown.errors, self._predictor.ages) if predicts else (errors, shown.ages)
        oldest = 2 / self.windows.rolling
        count = math.ceil(self.windows.rolling * len(errors))
        found = rolled(plan, lambda w: (ages[w] >= oldest, w in over, known[w], ages[w]), count, len(errors))
        if predicts and not self._asked and not self._predictor.known:
            return Plan(found.refresh[AUDITED:], found.refresh[:AUDITED])  # audits are refreshed, too
        return found

    def _pays(self, plan: Plan) -> bool:
        """Return True if this is faster than whole frames; of rolling refreshes, than the slowest of them."""
        times, levels = self._times, self._levels
        cells = levels.cover(plan.refresh, times.refresh), levels.cover(plan.predict, times.predict)
        return times.pay(times.cost(*cells), steady=bool(self.windows.rolling))

    def _run(
        self, call: Call, shown: Shown, plan: Plan, signals: Sequence[tuple[float, float]], errors: list[float]
    ) -> bool:
        """Compute windows and paste them; return False if a result is not finite: nothing on show has changed then."""
        begun, predictor = time.perf_counter(), self._predictor
        predicted = self._jobs(plan.predict, self._times.predict, set(plan.predict))
        found = [guess for job in predicted for guess in predictor.run(call, shown.levels, job)]
        for guess in found:
            errors[guess.window] = guess.error
        left = [0.0 if window in set(plan.refresh) else error for window, error in enumerate(errors)]
        holds = self._asked or not self.windows.rolling
        wanted = [*plan.refresh, *predictor.refused(found, set(self._budget.over(left) if holds else []))]
        refreshed = self._jobs(wanted, self._times.refresh, set(wanted) if self.windows.rolling else None)
        made = [(job, predictor.refresh(call, shown.levels, job)) for job in refreshed]
        if not all(finite([leaves for _, leaves in made], [guess.leaves for guess in found])):
            return False
        self._times.note_windows(refreshed, predicted, time.perf_counter() - begun)
        self._learn(shown, signals, made, {guess.window: guess for guess in found})
        self._show(call, shown, made, found, errors)
        return True

    def _jobs(self, windows: Sequence[int], costs: Sequence[float], taken: Collection[int] | None) -> list[Job]:
        return list(self._levels.jobs(self._levels.cover(windows, costs), self._times.device, taken))

    def _show(
        self, call: Call, shown: Shown, made: Sequence[_Made], found: Sequence[Guess], errors: list[float]
    ) -> None:
        """Paste windows into the picture on show, and note what became of them."""
        full = {window for job, _ in made for windows in job.windows for window in windows}
        for window in full:
            errors[window] = 0.0
        for guess in found:
            shown.paste(guess.job, guess.leaves)
        for job, leaves in made:
            shown.paste(job, leaves)
        guessed = [guess.window for guess in found if guess.window not in full]
        shown.passed(call, [*full, *guessed], errors)
        self._predictor.passed(full, guessed)
        if full and (patches := self._predictor.patches) is not None:
            self._reference, self._encoded = Reference(patches.a, patches.f, ()), False
        kept = len(errors) - len(full) - len(guessed)
        self.counts.update(kept=kept, predicted=len(guessed), refreshed=len(full))

    def _learn(
        self,
        shown: Shown,
        signals: Sequence[tuple[float, float]],
        made: Sequence[_Made],
        found: Mapping[int, Guess],
    ) -> None:
        """Compare what is on show, and what was predicted, with the refreshed windows."""
        before = self.picture(shown.rebuilt(shown.leaves))
        for job, leaves in made:
            after = self.picture(shown.rebuilt(leaves))
            for window, old, core in shown.levels.cores(job, before, after):
                error = _error(core, old)
                if window == self._audited:
                    self._trust.learn((shown.errors[window] + self._gains.estimate(signals[window]),), error)
                self._gains.learn(signals[window], max(error - shown.errors[window], 0.0))
                if window in found:
                    guess = found[window]
                    views = shown.levels.cores(guess.job, before, self.picture(shown.rebuilt(guess.leaves)))
                    self._predictor.audit(guess, _error(core, next(views)[2]))

    def _whole(self, call: Call, args: Any, kwargs: Any) -> Any:
        """A frame as in `Stream`; remember what it shows, unless windows rest."""
        begun = time.perf_counter()
        output = super().__call__(*args, **kwargs)
        self._times.note_whole(time.perf_counter() - begun, full=self.distance == 0)
        self._shown = None
        if not self._times.rest and all(finite(output)):
            self._remember(call, output)
        return output

    def _remember(self, call: Call, output: Any) -> None:
        """Keep a whole frame's output on show; after the first one, measure what windows take."""
        patches = self._patches() if self._guesses else None
        if not self._measured:
            maps = [*flatten(output)[0], *((*patches.a, *patches.f) if patches else ())]
            self._levels = self._levels.serving(maps)
            self._times = self._timed(self._times.device)
            self._times.note_whole(math.inf, full=True)
        estimates = self.policies[0].estimates if self.distance and self.policies else ()
        self._shown = Shown(call, self._levels, output, error_of(estimates[-1]) if estimates else 0.0)
        self._budget = Budget(self.quality, self._shown.grid.shares)
        self._predictor.begin(len(self._shown.grid), patches, self.distance)
        if not self._measured:
            measure(self._predictor, call, self._levels, self._times)
            self._measured = True

    def _patches(self) -> Patches | None:
        """Return the features of the reference; None if leaking features are kept from it, which no block predicts."""
        kept = self._reference
        return Patches(kept.a, kept.f) if kept is not None and len(kept.a) == len(kept.f) else None


def _error(one: Tensor, other: Tensor) -> float:
    return float((one.clamp(0, 1) - other.clamp(0, 1)).float().square().mean())
