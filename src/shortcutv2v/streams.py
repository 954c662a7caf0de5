"""Many videos through one model: every step runs the frames of all of them in one batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.errors import InputError, ShortcutError
from shortcutv2v.refresh import Look, RefreshPolicy, own_copy
from shortcutv2v.rows import joined, select
from shortcutv2v.step import Step
from shortcutv2v.stream import Stream

if TYPE_CHECKING:
    from shortcutv2v.model import ShortcutV2V

__all__ = ["Staggered", "Streams"]

_Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Staggered(RefreshPolicy):
    """A policy whose first refresh comes early, so that streams that began together do not refresh together.

    Args:
        policy: decides all other refreshes.
        early: the largest distance before the first refresh; 0 to leave the policy as it is.
    """

    policy: RefreshPolicy
    early: int = 0
    interval: int = field(default=0, init=False)
    _waits: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.interval = self.policy.interval
        # A class says once whether its policies audit; this one is as the policy within.
        vars(self).update(guarded=self.policy.guarded, audits=self.policy.audits, _waits=self.early > 0)

    def __call__(self, look: Look) -> bool | str:
        """Ask the policy; refresh early once."""
        found = self.policy(look)
        if not found and self._waits and look.distance >= self.early:
            found = "staggered"
        self._waits = self._waits and not found
        return found

    def reset(self) -> None:
        """Forget the video."""
        self._waits = self.early > 0
        self.policy.reset()

    @property
    def gap(self) -> int:
        """That of the policy."""
        return self.policy.gap

    def audit(self, look: Look, psnr: float) -> None:
        """Pass an audit on."""
        self.policy.audit(look, psnr)

    @property
    def estimates(self) -> Sequence[float]:
        """Those of the policy."""
        return self.policy.estimates

    def note(self) -> str:
        """Return what the policy has to say."""
        return self.policy.note()


class Streams:
    """Videos that go through a model together, each with its own reference, policy and age. See `model.streams()`.

    A step takes at most one frame of each video. Frames of one size are one batch: the head and the tail run once, the
    middle once on the rows that are due, the block once on the others. The outputs equal those of separate streams with
    the same policies within rounding, because convolutions of batches are summed in another order. A teacher that mixes
    the rows of a batch (batch norm in train mode) is noticed at the first step, and its videos then run one by one.

    Args:
        model: the wrapped teacher.
        make: returns a new stream of the model.
        n: videos to begin with, with the keys 0 to n - 1.
        stagger: spread the refreshes of videos that begin together over the interval.

    Attributes:
        batched: False if the teacher mixes the rows of a batch.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> streams = shortcutv2v.wrap(teacher, "0", "2").streams(3)
        >>> frame = torch.rand(1, 3, 8, 8)
        >>> distances = []
        >>> for _ in range(4):
        ...     outputs = streams([frame, frame, frame])
        ...     distances.append([stream.distance for stream in streams.values()])
        >>> distances
        [[0, 0, 0], [1, 1, 0], [2, 0, 1], [0, 1, 2]]
        >>> key = streams.join()
        >>> sorted(streams({key: frame, 0: torch.rand(1, 3, 16, 16)}))
        [0, 3]
    """

    def __init__(self, model: ShortcutV2V, make: Callable[[], Stream], n: int, stagger: bool = True) -> None:
        self.model, self._make, self._stagger = model, make, stagger
        self._streams: dict[int, Stream] = {}
        self._joined = 0
        self._checked: set[Hashable] = set()
        self.batched = True
        for place in range(n):
            self.join(place / n)

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, key: int) -> Stream:
        """Return one video's stream: its distance, its summary, its policy; `reset()` begins a new video."""
        if key not in self._streams:
            raise InputError(f"there is no stream {key}; the streams are {list(self._streams)}: join() adds one")
        return self._streams[key]

    def __iter__(self) -> Iterator[int]:
        """Yield the keys of the videos, in the order in which they joined."""
        return iter(list(self._streams))

    def values(self) -> list[Stream]:
        """Return the videos' streams, in the order in which they joined."""
        return list(self._streams.values())

    def join(self, phase: float | None = None) -> int:
        """Add a video and return its key.

        Args:
            phase: where in the interval its refreshes fall, from 0 to 1, if they are staggered; default: spread evenly
                over the videos that join one after the other.
        """
        key, stream = self._joined, self._make()
        if self._stagger:
            # The golden ratio: however many join, their phases are spread evenly.
            late = key * 0.618034 % 1 if phase is None else phase
            policy = own_copy(stream.refresh)
            stream.refresh = Staggered(policy, policy.interval - int(late * policy.interval + 1e-6) if late else 0)
        self._streams[key], self._joined = stream, key + 1
        return key

    def leave(self, key: int) -> Stream:
        """Remove a video; return its stream, which may go on alone."""
        stream = self[key]
        del self._streams[key]
        return stream

    @torch.no_grad()
    def __call__(self, frames: Mapping[int, Any] | Sequence[Any]) -> Any:
        """Run the next frames.

        Args:
            frames: key -> frame, for the videos that have one; or a list with a frame for every video, None for none. A
                frame is a tensor with one row, (1, C, H, W); a tuple of the teacher's positional inputs; or a pair of
                such a tuple and a dictionary of keyword inputs. Sizes may differ.

        Returns:
            The outputs in the same form: key -> output, or a list.

        Raises:
            InputError: there is no such video, or the list has another length.
        """
        if isinstance(frames, Mapping):
            return self._run({key: _inputs(frame) for key, frame in frames.items()})
        if len(frames) != len(self):
            raise InputError(f"{len(frames)} frames for {len(self)} streams: give None for a stream that has none")
        given = {key: _inputs(frame) for key, frame in zip(self._streams, frames, strict=True) if frame is not None}
        outputs = self._run(given)
        return [outputs.get(key) for key in self._streams]

    def _run(self, given: Mapping[int, _Inputs]) -> dict[int, Any]:
        groups: dict[Hashable, dict[int, _Inputs]] = {}
        for key, inputs in given.items():
            groups.setdefault(_kind(inputs), {})[key] = inputs
        outputs: dict[int, Any] = {}
        for kind, rows in groups.items():
            streams, each = [self[key] for key in rows], list(rows.values())
            if len(each) > 1 and kind not in self._checked:
                self.batched = self.batched and _batches(self.model, each)
                self._checked.add(kind)
            if self.batched:
                found = Step(streams, each)()
            else:
                found = [stream(*args, **kwargs) for stream, (args, kwargs) in zip(streams, each, strict=True)]
            outputs.update(zip(rows, found, strict=True))
        return outputs


def _inputs(frame: Any) -> _Inputs:
    if not isinstance(frame, tuple):
        return (frame,), {}
    if len(frame) == 2 and isinstance(frame[0], tuple) and isinstance(frame[1], dict):
        return frame
    return frame, {}


def _kind(inputs: Any) -> Hashable:
    """Return what inputs must share to be one batch: structure, shapes, and values that are no tensors."""
    leaves, structure = pytree.tree_flatten(inputs)
    return str(structure), tuple(
        (tuple(x.shape), x.dtype, x.device) if isinstance(x, Tensor) and x.dim() and x.shape[0] == 1 else _value(x)
        for x in leaves
    )


def _value(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return id(leaf)
    return leaf if isinstance(leaf, Hashable) else id(leaf)


def _batches(model: ShortcutV2V, inputs: Sequence[_Inputs]) -> bool:
    """Return whether a full pass of a batch gives each row what it gives the row alone; warn if it does not."""
    try:
        args, kwargs = inputs[0]
        alone, _ = model.reference(*args, **kwargs)
        args, kwargs = joined(inputs)
        together = select(model.reference(*args, **kwargs)[0], len(inputs), [0])
        pairs = zip(pytree.tree_leaves(alone), pytree.tree_leaves(together), strict=True)
        right = all(_near(a, b) for a, b in pairs if isinstance(a, Tensor))
    except (RuntimeError, ShortcutError, ValueError):
        right = False
    if not right:
        warnings.warn("the teacher mixes the rows of a batch, so the streams run one by one", stacklevel=5)
    return right


def _near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point():
        return a.shape == b.shape
    tolerance = 64 * torch.finfo(a.dtype).eps * max(1.0, float(a.abs().max()))
    return bool(((a - b).abs().mean() <= tolerance) | ~a.isfinite().all())
