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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.decibels import error_of
from shortcutv2v.errors import InputError
from shortcutv2v.quality import Quality
from shortcutv2v.refresh import Every, RefreshPolicy
from shortcutv2v.rows import finite
from shortcutv2v.stream import Stream
from shortcutv2v.summary import KEPT, Summary
from shortcutv2v.types import Reference
from shortcutv2v.windows.locality import Call, Locality, probe
from shortcutv2v.windows.parts import AUDITED, Guess, Patches, Predictor
from shortcutv2v.windows.settings import Windows
from shortcutv2v.windows.shown import Shown
from shortcutv2v.windows.tiles import Grid
from shortcutv2v.windows.times import Times
from shortcutv2v.windows.worth import Gains, budgeted

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["WindowStream"]

_MARGIN = 0.7
"""Share of the allowed error that is planned for: 1.5 dB of reserve, because windows are chosen by estimates."""
_CAP = 4.0
"""Largest error of one window, in errors that the picture may have: 6 dB."""
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
        self.locality: Locality | None = None
        self._grid: Grid | None = None
        predicts = self.windows.predict and model.trained_interval is not None
        super().__init__(model, refresh if predicts else Every(1), show_shortcut, picture)

    def reset(self) -> None:
        """Forget the video."""
        super().reset()
        self._shown: Shown | None = None
        self._gains, self._trust = Gains(2), Gains(1)
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
        plan = self._rolled(shown, errors) if self.windows.rolling else self._planned(shown, errors)
        if plan is None or not self._run(call, shown, plan, signals, errors):
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
        if self._grid is None or self._grid.size != call.size:
            self.halo = self.locality.halo(self._allowed) if self.windows.halo is None else self.windows.halo
            side = self.windows.side(call.size[0], self.halo)
            self._grid, self._shown = Grid.of(call.size, side, self.halo, self.locality.align), None
            device = call.tensors[call.pictures[0]].device.type
            self._times = Times(self._grid, self.locality.seconds, self._guesses, device)

    @property
    def _allowed(self) -> float:
        return _MARGIN * error_of(self.quality)

    @property
    def _guesses(self) -> bool:
        return self.windows.predict and self.model.trained_interval is not None

    def _planned(self, shown: Shown, errors: Sequence[float]) -> tuple[list[int], list[int]] | None:
        """Return the windows to refresh, and those to predict, given the errors of keeping; None if that is slow."""
        todo = self._over(shown, errors)
        kept = [window for window in range(len(errors)) if window not in set(todo)]
        self._audited = None
        if kept and self._frames % _AUDIT_EVERY == 0:
            self._audited = max(kept, key=shown.ages.__getitem__)
            todo.append(self._audited)
        direct, guessed = self._predictor.divided(todo)
        return (direct, guessed) if self._times.pay(len(direct), len(guessed)) else None

    def _rolled(self, shown: Shown, errors: Sequence[float]) -> tuple[list[int], list[int]]:
        """Return as many windows to refresh as on every frame, and those to predict."""
        over, count = self._over(shown, errors), math.ceil(self.windows.rolling * len(errors))
        predicts = self._predictor.patches is not None
        worth = shown.errors if predicts else errors
        ages = self._predictor.ages if predicts else shown.ages
        oldest = 2 / self.windows.rolling
        due = sorted(
            range(len(errors)), key=lambda w: (ages[w] >= oldest, w in set(over), worth[w], ages[w]), reverse=True
        )
        if predicts and not self._predictor.known:
            audited = min(AUDITED, count)
            return due[audited:count], due[:audited]
        return due[:count], [window for window in over if predicts and window not in due[:count]]

    def _over(self, shown: Shown, errors: Sequence[float]) -> list[int]:
        return budgeted(errors, shown.grid.shares, self._allowed, _CAP * self._allowed)

    def _run(
        self,
        call: Call,
        shown: Shown,
        plan: tuple[list[int], list[int]],
        signals: Sequence[tuple[float, float]],
        errors: list[float],
    ) -> bool:
        """Compute windows and paste them; return False if a result is not finite: nothing on show has changed then."""
        begun, (direct, guessed) = time.perf_counter(), plan
        found = list(self._predictor.run(call, shown.grid, guessed))
        for window in direct:
            errors[window] = 0.0
        for guess in found:
            errors[guess.window] = guess.error
        over = [] if self.windows.rolling else self._over(shown, errors)
        full = [*direct, *self._predictor.refused(found, over)]
        made = list(self._predictor.refresh(call, shown.grid, full))
        if not all(finite([leaves for _, leaves in made], [guess.leaves for guess in found])):
            return False
        self._times.note_windows(full, guessed, time.perf_counter() - begun)
        self._learn(shown, signals, made, {guess.window: guess for guess in found})
        for window in full:
            errors[window] = 0.0
        shown.paste(([guess.window], guess.leaves) for guess in found)
        shown.paste(made)
        shown.passed(call, todo := [*direct, *guessed], errors)
        self._predictor.passed(full, guessed)
        if full and (patches := self._predictor.patches) is not None:
            self._reference, self._encoded = Reference(patches.a, patches.f, ()), False
        self.counts.update(kept=len(errors) - len(todo), predicted=len(todo) - len(full), refreshed=len(full))
        return True

    def _learn(
        self,
        shown: Shown,
        signals: Sequence[tuple[float, float]],
        made: Sequence[tuple[list[int], list[Tensor]]],
        found: Mapping[int, Guess],
    ) -> None:
        """Compare what is on show, and what was predicted, with the refreshed windows."""
        grid, before = shown.grid, self.picture(shown.rebuilt(shown.leaves))
        for windows, leaves in made:
            after = self.picture(shown.rebuilt(leaves))
            for window, core in zip(windows, grid.inner(after, before, windows), strict=True):
                error = _error(core, grid.core(before, window, after))
                if window == self._audited:
                    self._trust.learn((shown.errors[window] + self._gains.estimate(signals[window]),), error)
                self._gains.learn(signals[window], max(error - shown.errors[window], 0.0))
                if window in found:
                    guess = self.picture(shown.rebuilt(found[window].leaves))
                    self._predictor.audit(found[window], _error(core, grid.inner(guess, before, [window])[0]))

    def _whole(self, call: Call, args: Any, kwargs: Any) -> Any:
        """A frame as in `Stream`; remember what it shows, unless windows rest."""
        begun, grid = time.perf_counter(), self._grid
        assert grid is not None  # noqa: S101  (made before)
        output = super().__call__(*args, **kwargs)
        self._times.note_whole(time.perf_counter() - begun, full=self.distance == 0)
        self._shown = None
        if not self._times.rest and all(finite(output)):
            estimates = self.policies[0].estimates if self.distance and self.policies else ()
            self._shown = Shown(call, grid, output, error_of(estimates[-1]) if estimates else 0.0)
            self._predictor.begin(len(grid), self._patches() if self._guesses else None, self.distance)
        return output

    def _patches(self) -> Patches | None:
        """Return the features of the reference; None if leaking features are kept from it, which no block predicts."""
        kept = self._reference
        return Patches(kept.a, kept.f) if kept is not None and len(kept.a) == len(kept.f) else None


def _error(one: Tensor, other: Tensor) -> float:
    return float((one.clamp(0, 1) - other.clamp(0, 1)).float().square().mean())
