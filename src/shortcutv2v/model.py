"""A wrapped teacher: its three parts, a block per branch, and the two passes. Everything here is pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from shortcutv2v.blocks import Prediction, ShortcutBlock
from shortcutv2v.errors import InputError
from shortcutv2v.graph import Capture, Cut, begin_pass, keep, replays
from shortcutv2v.refresh import Every, RefreshPolicy, as_policy
from shortcutv2v.stream import Stream
from shortcutv2v.types import Carry, Reference

__all__ = ["Blocks", "ShortcutV2V", "placement"]


class Blocks(nn.ModuleList):
    """The Shortcut blocks of a model, one per branch: a ModuleList that knows what it holds."""

    def __iter__(self) -> Iterator[ShortcutBlock]:
        return cast("Iterator[ShortcutBlock]", super().__iter__())


class ShortcutV2V(nn.Module):
    """What `wrap()` returns: a drop-in for the teacher in a video loop.

    The teacher is held, but not registered: `parameters()`, `state_dict()`, `train()` and `eval()` concern the
    blocks alone, the teacher's flags stay the user's, and no checkpoint ever contains the teacher. `to()`,
    `half()` and their like move both.

    Args:
        capture: the captured and cut teacher.
        blocks: one Shortcut block per branch.
        refresh: the refresh policy of `model(frame)` and the default of `stream()`.
        show_shortcut: default of `stream()`, see `Stream`.

    Attributes:
        teacher: the user's module, untouched.
        cut: what was cut; print it.
        blocks: the trainable Shortcut blocks, one per branch.
    """

    def __init__(
        self,
        capture: Capture,
        blocks: Sequence[ShortcutBlock],
        refresh: RefreshPolicy,
        show_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.capture = capture
        self.blocks = Blocks(blocks)
        self._replays = False
        self._default_stream = Stream(self, refresh, show_shortcut)

    @property
    def teacher(self) -> nn.Module:
        """The wrapped module."""
        return self.capture.teacher

    @property
    def cut(self) -> Cut:
        """Where the teacher was cut."""
        return self.capture.cut

    @property
    def refresh(self) -> RefreshPolicy:
        """The refresh policy of `model(frame)` and the default of `stream()`; an interval may be assigned, too."""
        return self._default_stream.refresh

    @refresh.setter
    def refresh(self, refresh: RefreshPolicy | int) -> None:
        self._default_stream.refresh = as_policy(refresh)

    @property
    def show_shortcut(self) -> bool:
        """Whether `model(frame)` shows the block's prediction at reference frames, and the default of `stream()`."""
        return self._default_stream.show_shortcut

    @show_shortcut.setter
    def show_shortcut(self, show: bool) -> None:
        self._default_stream.show_shortcut = show

    @property
    def max_interval(self) -> int | None:
        """Frames from one refresh to the next; None when the refresh policy has no fixed interval."""
        return self.refresh.interval if isinstance(self.refresh, Every) else None

    def head(self, *args: Any, **kwargs: Any) -> Carry:
        """Run what `a` needs. Takes the teacher's inputs. Every pass begins here."""
        if self._replays:
            begin_pass()
        return self.capture.at(args, kwargs).head(*args, **kwargs)

    def middle(self, carry: Carry) -> tuple[Tensor, ...]:
        """Run what lies between `a` and `f`.

        Returns:
            `f`, one (B, C_f, H, W) per branch; behind them the leaking features kept by `on_leak="reuse"`.
        """
        return self.capture.of(carry).middle(carry)

    def tail(self, carry: Carry, f: tuple[Tensor, ...]) -> Any:
        """Run what the output needs once `f` is given.

        Args:
            carry: what the head handed on for the current frame.
            f: as `middle()` or `predict()` returns it.

        Returns:
            The output in the teacher's own structure.
        """
        output = self.capture.of(carry).tail(carry, f)
        return keep(output) if self._replays else output

    def make_reference(self, carry: Carry, f: tuple[Tensor, ...]) -> Reference:
        """The reference that a full pass leaves: `a`, `f`, and all that the blocks compute from them alone."""
        state = tuple(
            block.encode_reference(f_ref, a_ref) for block, f_ref, a_ref in zip(self.blocks, f, carry.a, strict=False)
        )
        reference = Reference(carry.a, f, state)
        return keep(reference) if self._replays else reference

    def predict(self, reference: Reference, carry: Carry) -> tuple[Tensor, ...]:
        """`f` of the current frame as the blocks predict it; leaking features are those of the reference.

        Raises:
            InputError: the current features differ from those of the reference in number, shape, device or dtype.
        """
        _check_fits(reference, carry)
        predicted = tuple(
            block.predict(state, a) for block, state, a in zip(self.blocks, reference.state, carry.a, strict=True)
        )
        return predicted + reference.f[len(predicted) :]

    def analyse(self, reference: Reference, carry: Carry) -> tuple[Prediction, ...]:
        """As `predict`, with what each block looked at: one `Prediction` per branch, for losses and pictures."""
        _check_fits(reference, carry)
        return tuple(
            block.analyse(state, a) for block, state, a in zip(self.blocks, reference.state, carry.a, strict=True)
        )

    def reference(self, *args: Any, **kwargs: Any) -> tuple[Any, Reference]:
        """A full pass.

        Returns:
            The teacher's own output, and the `Reference` for the shortcut passes that follow.
        """
        carry = self.head(*args, **kwargs)
        f = self.middle(carry)
        return self.tail(carry, f), self.make_reference(carry, f)

    def shortcut(self, reference: Reference, *args: Any, **kwargs: Any) -> Any:
        """A shortcut pass: the output predicted from `reference` and the current inputs; the middle does not run.

        Raises:
            InputError: no reference is given, or it does not fit the current features.
        """
        if not isinstance(reference, Reference):
            raise InputError(
                f"shortcut() takes a reference before the teacher's inputs, got {type(reference).__name__}: "
                "output, reference = model.reference(frame), then model.shortcut(reference, next_frame)"
            )
        carry = self.head(*args, **kwargs)
        return self.tail(carry, self.predict(reference, carry))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The next frame of a video, as `teacher(*args, **kwargs)` would give it; refreshes by policy."""
        return self._default_stream(*args, **kwargs)

    def reset(self) -> None:
        """Begin a new video: forget the reference of `model(frame)`."""
        self._default_stream.reset()

    def stream(self, refresh: RefreshPolicy | int | None = None, show_shortcut: bool | None = None) -> Stream:
        """A video stream with its own state.

        Args:
            refresh: a policy, or an interval, instead of the model's.
            show_shortcut: instead of the model's, see `Stream`.
        """
        show = self.show_shortcut if show_shortcut is None else show_shortcut
        return Stream(self, self.refresh if refresh is None else as_policy(refresh), show)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile head, middle, tail and blocks with `torch.compile(**options)`, each as one program.

        The first frames of each size take long, then passes are faster where the device gains from fusion. The state
        of streams stays outside the compiled code. A teacher captured by hooks is not compiled, its blocks are. Results
        change within rounding.

        With `mode="reduce-overhead"` (CUDA graphs) every replay overwrites the results of the one before. References
        and outputs are therefore copied out of the graphs' memory, and stay yours; a `Carry`, and `f` as `middle()` or
        `predict()` gives it, hold until the next `head()`, which begins a step (`cudagraph_mark_step_begin`). Mark
        one yourself before each call of other compiled code in the same process, such as a compiled teacher. Tested
        with a backend that overwrites its results as replays do, never on a GPU.

        Args:
            args: none; named options only.
            options: those of `torch.compile`, such as `backend` or `dynamic`.

        Raises:
            InputError: a positional option.
        """
        if args:
            raise InputError("compile() takes named options only, such as model.compile(dynamic=False)")
        self._replays = replays(options)
        self.capture.compile(**options)
        for block in self.blocks:
            block.compile(**options)

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
        return f"{self.cut.short}, refresh={self.refresh}"


def _check_fits(reference: Reference, carry: Carry) -> None:
    """Shapes and devices are the same, and no dtype is wider than the current one: autocast may narrow it."""
    made, current = ([(tuple(x.shape), x.device) for x in of.a] for of in (reference, carry))
    autocast = any(torch.is_autocast_enabled(x.device.type) for x in carry.a if x.device.type != "meta")
    narrow = (torch.promote_types(r.dtype, a.dtype) != a.dtype for r, a in zip(reference.a, carry.a, strict=False))
    if made != current or (not autocast and any(narrow)):
        raise InputError(
            f"the reference was made from features of shape {_words(reference)}, the current frame gives "
            f"{_words(carry)}: call model.reference() on a frame like this one first"
        )


def _words(of: Reference | Carry) -> str:
    return ", ".join(f"{tuple(x.shape)} ({str(x.dtype).removeprefix('torch.')}, {x.device})" for x in of.a)


def placement(teacher: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the teacher's floating-point parameters; the defaults for a teacher without any."""
    for parameter in teacher.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.get_default_dtype()
