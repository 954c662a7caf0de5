"""A wrapped teacher, as users hold it: streams, quality by name, calibration, saving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from shortcutv2v.blocks import ShortcutBlock
from shortcutv2v.errors import InputError
from shortcutv2v.goals import parse_quality, policy_for
from shortcutv2v.graph import Capture
from shortcutv2v.lazy import BlockMaker
from shortcutv2v.passes import Passes, placement
from shortcutv2v.quality import Calibration
from shortcutv2v.refresh import Look, RefreshPolicy
from shortcutv2v.rolling import RollingStream
from shortcutv2v.stream import Stream
from shortcutv2v.streams import Streams
from shortcutv2v.windows import Windows, WindowStream

__all__ = ["RefreshLike", "ShortcutV2V", "placement"]

DEFAULT_HORIZON = 9
RefreshLike = RefreshPolicy | Callable[[Look], bool | str] | int


class ShortcutV2V(Passes):
    """A wrapped teacher, as `wrap()` returns it: a drop-in for the teacher in a video loop.

    The teacher is held, but not registered: `parameters()`, `state_dict()`, `train()` and `eval()` concern the
    blocks alone, the teacher's flags stay the user's, and no checkpoint ever contains the teacher. `to()`,
    `half()` and their like move both.

    Like a lazy module of torch, a model that was wrapped without example inputs is captured and gets its blocks when
    the first inputs come. Until then `blocks`, `parameters()` and `state_dict()` raise `InputError`.

    Args:
        capture: the captured and cut teacher.
        blocks: one Shortcut block per branch, or a function that makes them once the shapes of `a` and `f` are known.
        refresh: the refresh policy of `model(frame)` and the default of `stream()`.
        show_shortcut: default of `stream()`, see `Stream`.

    Attributes:
        teacher: the user's module, untouched.
        cut: the cut; print it.
        blocks: the trainable Shortcut blocks, one per branch.
        trained_interval: the largest interval that the blocks were trained for; None before any training.
        calibration: how the blocks' own signal tells their error, see `calibrate()`; None before it.
        picture: returns the picture in the teacher's output, as `Adapter.image` does; None for the first tensor in it.
            `Adapter.wrap()` and `calibrate()` set it. It is not saved.
    """

    def __init__(
        self,
        capture: Capture,
        blocks: Sequence[ShortcutBlock] | BlockMaker,
        refresh: RefreshPolicy,
        show_shortcut: bool = False,
    ) -> None:
        super().__init__(capture, blocks)
        self.trained_interval: int | None = None
        self.calibration: Calibration | None = None
        self.picture: Callable[[Any], Tensor] | None = None
        self._default_stream = Stream(self, refresh, show_shortcut)

    @property
    def refresh(self) -> RefreshPolicy:
        """The refresh policy of `model(frame)` and the default of `stream()`.

        Assign a policy, an interval, or a function `policy(look) -> bool`. Streams work with copies.
        """
        return self._default_stream.refresh

    @refresh.setter
    def refresh(self, refresh: RefreshLike) -> None:
        self._default_stream.refresh = refresh

    @property
    def show_shortcut(self) -> bool:
        """True if `model(frame)` shows the block's prediction at reference frames, and the default of `stream()`."""
        return self._default_stream.show_shortcut

    @show_shortcut.setter
    def show_shortcut(self, show: bool) -> None:
        self._default_stream.show_shortcut = show

    @property
    def max_interval(self) -> int:
        """Largest number of frames from one refresh to the next: the horizon of the refresh policy."""
        return self.refresh.interval

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The next frame of a video, as `teacher(*args, **kwargs)` would give it; refreshes by policy."""
        return self._default_stream(*args, **kwargs)

    def reset(self) -> None:
        """Begin a new video: forget the reference of `model(frame)`."""
        self._default_stream.reset()

    def stream(
        self,
        refresh: RefreshLike | None = None,
        show_shortcut: bool | None = None,
        *,
        quality: str | float | None = None,
        speed: float | None = None,
        guarantee: int = 0,
        windows: bool | Windows = False,
        rolling: bool = False,
    ) -> Stream:
        """Return a video stream with its own state.

        Args:
            refresh: a policy, an interval, or a function `policy(look) -> bool`, instead of the model's policy. The
                stream works with a copy of it.
            show_shortcut: instead of the model's, see `Stream`.
            quality: instead of a policy, the PSNR in dB to the teacher that 95 % of the shortcut frames shall hold, or
                a text such as `"40dB@99%"`; `"lossless"` runs the teacher on every frame. See `quality.Quality`.
            speed: instead of a policy, how many times as fast as the teacher the stream shall be on average, at the
                best quality that allows. See `quality.Speed`.
            guarantee: with `quality`, run every so many-th shortcut frame in full, show that, and count what the
                prediction would have been worth.
            windows: compute only the windows of a frame that need it; True, or settings. For local teachers, see
                `windows.WindowStream`.
            rolling: spread every refresh over the frames of an interval, so that all frames take about as long; the
                references are older then. For teachers that are not local, see `rolling.RollingStream`; for others
                there is `Windows(rolling=...)`, too.

        Raises:
            InputError: more than one of `refresh`, `quality` and `speed` is given, one is out of range, windows
                are to be lossless, or `rolling` is given with windows or without a fixed interval.

        Examples:
            ```python
            stream = model.stream(quality=40)
            for frame in video:
                output = stream(frame)
            print(stream.summary())
            ```
        """
        show = self.show_shortcut if show_shortcut is None else show_shortcut
        goal: dict[str, Any] = {"refresh": refresh, "quality": quality, "speed": speed, "guarantee": guarantee}
        policy = policy_for(self.refresh, self.horizon, self.calibration, **goal)
        if rolling and windows:
            raise InputError("rolling=True is for whole frames: for windows, give windows=Windows(rolling=1/9) instead")
        if rolling:
            return RollingStream(self, policy, show, self.picture)
        if windows:
            if quality is not None and parse_quality(quality) is None:
                raise InputError(f"quality={quality!r} and windows exclude each other: give a PSNR in dB, such as 45")
            settings = windows if isinstance(windows, Windows) else Windows()
            return WindowStream(self, policy, show, self.picture, settings)
        return Stream(self, policy, show, self.picture)

    def streams(self, n: int = 0, *, stagger: bool = True, **goal: Any) -> Streams:
        """Return `n` video streams that run together, in one batch a step; more may join and leave.

        Args:
            n: videos to begin with.
            stagger: let the first refresh of some come early, so that they do not all refresh in the same step.
            goal: `refresh`, `quality` and the others of `stream()`, except `windows` and `rolling`.

        Raises:
            InputError: `goal` is refused by `stream()`, or names one of these two.

        Examples:
            ```python
            streams = model.streams(4, quality=40)
            outputs = streams([frame_a, frame_b, None, frame_d])
            ```
        """
        if goal.get("windows"):
            raise InputError("streams() runs whole frames, in one batch: leave windows= out, or use stream()")
        if goal.get("rolling"):
            raise InputError("streams() refreshes every video at once: leave rolling= out, or use stream()")
        return Streams(self, lambda: self.stream(**goal), n, stagger)

    def calibrate(
        self, clips: Any, adapter: Any = None, *, interval: int | None = None, frames: int = 120
    ) -> Calibration:
        """Learn how the blocks' own signal tells their error, for `stream(quality=...)`; `save()` stores it.

        Args:
            clips: frames uint8 (3, H, W) that the blocks were not trained on, in order; a list of clips for several.
            adapter: how frames become the teacher's inputs; default: the frame itself.
            interval: predictions are made up to `interval - 1` frames after a reference; default: the horizon of
                `stream(quality=...)`.
            frames: the most frames to run, through teacher and blocks, in all.

        Returns:
            The calibration, which is also kept in `calibration`.

        Raises:
            InputError: there are too few frames, or `adapter` is of another teacher.
        """
        from shortcutv2v.calibrate import calibrate

        self.calibration = calibrate(self, clips, adapter, interval or self.horizon, frames)
        return self.calibration

    @property
    def horizon(self) -> int:
        """Horizon of `stream(quality=...)` and `stream(speed=...)`: the interval of the training, at least 9."""
        return max(DEFAULT_HORIZON, self.trained_interval or 0)

    def save(self, folder: str | Path) -> None:
        """Save the blocks and the recipe, never the teacher; see `shortcutv2v.load`."""
        from shortcutv2v.checkpoint import save

        save(self, folder)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ShortcutV2V:
        """Move the teacher along with the blocks (`to`, `half`, `cuda`, ...)."""
        self.teacher._apply(fn)
        super()._apply(fn)
        self.reset()
        return self

    def extra_repr(self) -> str:
        """The cut and the policy."""
        pending = "" if self.materialised else ", blocks made at the first frame"
        return f"{self.cut.short}, refresh={self.refresh}{pending}"
