"""Check an adapter on one frame, so that its mistakes are reported before a video runs, and in words."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shortcutv2v.errors import InputError, ShortcutError
from shortcutv2v.graph import untouched
from shortcutv2v.model import placement
from shortcutv2v.teacher import check_teacher, say_once

if TYPE_CHECKING:
    from shortcutv2v.adapter import Adapter

__all__ = ["CheckedAdapter", "check_adapter"]

_SLACK = 0.02
"""Values this far outside [0, 1] still count as inside: sharp edges overshoot."""
_SHARE = 0.05
_SMALL = 32
_ROUNDED = 32
"""A picture larger than a multiple of its frame by fewer pixels is taken for a frame that the network rounded up."""
_FRAMES = 16
"""The largest number of frames that an adapter may open with before the teacher must run."""


def check_adapter(adapter: Adapter, frame: Tensor) -> None:
    """Run one frame through adapter and teacher and check what each method returns.

    The state of the teacher and of the random generators is restored.

    Args:
        adapter: how frames become inputs, and outputs frames.
        frame: an example frame, (B, 3, H, W) in [0, 1].

    Raises:
        InputError: `inputs`, `image` or `advance` returned a value of the wrong form, or failed; the message shows the
            expected form.

    Warns:
        UserWarning: the picture clearly leaves [0, 1], or the teacher is in train mode.

    Examples:
        >>> from shortcutv2v import Adapter
        >>> check_adapter(Adapter(torch.nn.Flatten(2)), torch.rand(1, 3, 8, 8))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        shortcutv2v.errors.InputError: Adapter.image() returned a float32 tensor of shape (1, 3, 64), but must ...
    """
    checked, state = CheckedAdapter(adapter), adapter.start()
    frame = adapter.pad(frame.to(*placement(adapter.teacher)))
    with untouched(adapter.teacher):
        for _ in range(_FRAMES):
            output = checked.opening(frame, state)
            if output is None:
                args, kwargs = checked.inputs(frame, state)
                output = checked.run(adapter.teacher, args, kwargs)
                checked.image(output)
                checked.inputs(frame, checked.advance(state, frame, output))
                return
            state = checked.advance(state, frame, output)
    raise InputError(
        f"{_name(adapter)}.opening() returned an output for {_FRAMES} frames in a row, but must return None once the "
        "teacher is to run"
    )


class CheckedAdapter:
    """The methods of an adapter, with the form of their results checked in every frame and the range in the first.

    Args:
        adapter: the user's. Its teacher is checked too, see `check_teacher`.

    Raises:
        InputError: from each method, if the result has a wrong form; from `run`, if it fails on the first frame.
    """

    def __init__(self, adapter: Adapter) -> None:
        check_teacher(adapter.teacher, train_mode=adapter.train_mode)
        self.adapter = adapter
        self._frame = torch.Size((1, 3, 1, 1))
        self._new = {"inputs", "run", "advance", "image"}

    def opening(self, frame: Tensor, state: Any) -> Any:
        """Return what `Adapter.opening()` returns."""
        return self._call("opening", frame, state)

    def inputs(self, frame: Tensor, state: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what `Adapter.inputs()` returns."""
        self._frame = frame.shape
        self._new.discard("inputs")
        return _check_inputs(self.adapter, self._call("inputs", frame, state))

    def run(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return `run(*args, **kwargs)`."""
        try:
            output = run(*args, **kwargs)
        except (ShortcutError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if "run" in self._new:
                raise InputError(_failed_run(self.adapter, error, args, kwargs)) from error
            raise
        self._new.discard("run")
        return output

    def image(self, output: Any) -> Tensor:
        """Return what `Adapter.image()` returns."""
        picture = _check_picture(self.adapter, self._call("image", output), output, self._frame[0])
        if "image" in self._new and "inputs" not in self._new:  # an opening's picture is not the teacher's
            self._new.discard("image")
            _check_range(self.adapter, picture)
            _check_size(self.adapter, picture, self._frame)
        return picture

    def advance(self, state: Any, frame: Tensor, output: Any) -> Any:
        """Return what `Adapter.advance()` returns."""
        following = self._call("advance", state, frame, output)
        if following is None and self.adapter.recurrent and "advance" in self._new:
            raise InputError(
                f"{_name(self.adapter)}.advance() returned None, but must return the state for the next frame: add "
                "`return state`, or leave advance() out if the teacher has no memory"
            )
        self._new.discard("advance")
        return following

    def _call(self, method: str, *args: Any) -> Any:
        """Return the method's result; an error inside it names the line that failed."""
        try:
            return getattr(self.adapter, method)(*args)
        except (ShortcutError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            own = _is_own(self.adapter, method)
            hint = "" if own else ": override it to return the picture in the teacher's output"
            raise InputError(
                f"{_name(self.adapter)}.{method}() failed with {type(error).__name__}: {error} "
                f"({Path(last.filename).name}, line {last.lineno}){hint}"
            ) from error


def _check_inputs(adapter: Adapter, returned: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    pair = isinstance(returned, tuple | list) and len(returned) == 2
    if not pair or not isinstance(returned[0], tuple | list) or not isinstance(returned[1], Mapping):
        raise InputError(
            f"{_name(adapter)}.inputs() returned {_described(returned)}, but must return a pair: the teacher's "
            "positional inputs as a tuple and its keyword inputs as a dict, such as `return (frame,), {}`"
        )
    return tuple(returned[0]), dict(returned[1])


def _failed_run(adapter: Adapter, error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    given = ", ".join([*map(_described, args), *(f"{name}={_described(v)}" for name, v in kwargs.items())])
    advice = (
        f"change what {_name(adapter)}.inputs() returns"
        if _is_own(adapter, "inputs")
        else "a teacher that needs more than one RGB frame in [0, 1] needs an adapter of its own: override "
        "Adapter.inputs() and give it as adapter="
    )
    if any(isinstance(x, Tensor) and x.dim() == 4 and min(x.shape[2:]) < _SMALL for x in args):
        advice = f"give larger frames if these are too small; {advice}"
    if "size" in str(error) and adapter.multiple == 1:
        advice += "; if it takes multiples of a number only, say of 8, set multiple = 8 on the adapter"
    return (
        f"the teacher failed with {type(error).__name__}: {error}. It was called with {given or 'no inputs'}: {advice}"
    )


def _check_picture(adapter: Adapter, picture: Any, output: Any, batch: int) -> Tensor:
    if isinstance(picture, Tensor):
        right = picture.is_floating_point() and picture.dim() == 4 and picture.shape[:2] == (batch, 3)
        if right and picture.numel():
            return picture
        advice = _advice_on_shape(picture)
    elif isinstance(picture, Mapping):
        advice = f"such as `return output[{next(iter(picture), 'name')!r}]`"
    elif isinstance(picture, tuple | list):
        advice = "such as `return output[0]`"
    else:
        advice = "such as `return output.picture`"
    where = f"{_name(adapter)}.image()"
    if picture is output and not _is_own(adapter, "image"):
        advice = f"override Adapter.image() in an adapter of your own, {advice}, and give it as adapter="
    raise InputError(
        f"{where} returned {_described(picture)}, but must return the picture as a float tensor of shape "
        f"({batch}, 3, height, width) in [0, 1]: {advice}"
    )


def _advice_on_shape(picture: Tensor) -> str:
    if not picture.is_floating_point():
        return "divide a uint8 picture by 255" if picture.dtype == torch.uint8 else "convert it to float"
    if picture.dim() == 3:
        return "a grey picture becomes RGB with `picture[:, None].expand(-1, 3, -1, -1)`"
    if picture.dim() == 4 and picture.shape[1] == 1:
        return "a grey picture becomes RGB with `picture.expand(-1, 3, -1, -1)`"
    if picture.dim() == 4 and picture.shape[-1] == 3:
        return "channels come second: `picture.permute(0, 3, 1, 2)`"
    if picture.dim() == 4 and picture.shape[1] == 4:
        return "leave out the alpha channel with `picture[:, :3]`"
    if picture.dim() == 4 and picture.shape[1] > 4:
        return "scores per label become colours with shortcutv2v.labels.LabelAdapter(teacher, ..., writes=...)"
    if picture.dim() == 5:
        return "of a sequence return one frame, such as `picture[:, -1]`"
    return "keep the batch dimension"


def _check_range(adapter: Adapter, picture: Tensor) -> None:
    values = picture.float()
    finite = values.isfinite()
    if not finite.all():
        say_once(
            adapter.teacher,
            "not finite",
            f"{_name(adapter)}.image() returned a picture with {float((~finite).float().mean()):.0%} of it not finite: "
            "the teacher overflows, or its weights are damaged",
        )
        return
    share = float(((values < -_SLACK) | (values > 1 + _SLACK)).float().mean())
    if share <= _SHARE:
        return
    least, most = float(values.min()), float(values.max())
    say_once(
        adapter.teacher,
        ("range", type(adapter), tuple(adapter.range)),
        f"{share:.0%} of the values in the teacher's picture lie outside [0, 1] (from {least:.2f} to {most:.2f}) and "
        f"would be clipped: {_fitting(adapter, least, most)}",
    )


def _check_size(adapter: Adapter, picture: Tensor, frame: torch.Size) -> None:
    """Warn if the network rounded the frame's sides up, so that the picture shows more than the frame."""
    made, given = picture.shape[2:], frame[2:]
    extra = (side - whole * max(1, round(side / whole)) for side, whole in zip(made, given, strict=True))
    if any(0 < more < _ROUNDED for more in extra):
        say_once(
            adapter.teacher,
            ("size", *given),
            f"the teacher makes a picture of {made[0]}x{made[1]} from a frame of {given[0]}x{given[1]}: if it takes "
            "multiples of a number only, say of 4, set multiple = 4 on the adapter, which pads and crops",
        )


def _fitting(adapter: Adapter, least: float, most: float) -> str:
    """Say which change would bring the picture into [0, 1]."""
    if _is_own(adapter, "image"):
        scaled = "(picture + 1) / 2" if most <= 2 else "picture / 255"
        return f"let {_name(adapter)}.image() return {scaled} if the network writes that range, or clamp it on purpose"
    if tuple(adapter.range) != (0, 1):
        return f"{_name(adapter)} has range={tuple(adapter.range)}, which does not fit"
    fitting = "(-1, 1)" if most <= 2 else "(0, 255)"
    return (
        f"if the network reads and writes {fitting.replace('(', '[').replace(')', ']')}, use "
        f"shortcutv2v.Adapter(teacher, ..., range={fitting}), also as adapter= of fit; otherwise override "
        "Adapter.inputs() and Adapter.image()"
    )


def _is_own(adapter: Adapter, method: str) -> bool:
    """Return True unless the method is that of `Adapter` itself."""
    return bool(getattr(adapter, method).__module__ != "shortcutv2v.adapter")


def _name(adapter: Adapter) -> str:
    return type(adapter).__name__


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {', '.join(map(repr, value))}" if value else "an empty dict"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)} ({', '.join(_described(v) for v in value[:3])})"
    return "None" if value is None else f"a value of type {type(value).__name__}"
