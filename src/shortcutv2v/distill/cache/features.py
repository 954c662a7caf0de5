"""The teacher's features of a frame as data: computed, batched, and given back to the model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError, ShortcutError
from shortcutv2v.graph.signature import autocast_state, modes
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.player import Player
from shortcutv2v.types import Carry

__all__ = ["Binder", "Features", "FrameShape", "Unbound", "collate", "features_of", "flatten", "teach", "unflatten"]

FrameShape = tuple[int, int, int]
"""(C, H, W)"""
_OPENING = 64


class Unbound(NamedTuple):
    """The shape of the frame, instead of the signature of a carry that came from disk; a `Binder` replaces it."""

    frame: FrameShape


class Features:
    """The teacher's work on one frame: unpacks as `carry, f`. Lightning moves it as a whole, by `to()`.

    Args:
        carry: the result of `model.head()`.
        f: the result of `model.middle()`.

    Examples:
        >>> made = Features(Carry((torch.zeros(1, 4, 8, 8),), ()), (torch.zeros(1, 4, 8, 8),))
        >>> carry, f = made.to(torch.bfloat16)
        >>> f[0].dtype
        torch.bfloat16
    """

    __slots__ = ("carry", "f")

    def __init__(self, carry: Carry, f: tuple[Tensor, ...]) -> None:
        self.carry, self.f = carry, f

    def __iter__(self) -> Iterator[Any]:
        return iter((self.carry, self.f))

    def to(self, *args: Any, **kwargs: Any) -> Features:
        """Move or cast every tensor as `Tensor.to` does."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Features:
        """Pin the memory of every tensor; `DataLoader(pin_memory=True)` calls it."""
        return self.map(Tensor.pin_memory)

    def map(self, change: Callable[[Tensor], Tensor]) -> Features:
        """Change every tensor by `change`."""
        leaves, spec = flatten(self)
        changed = [change(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return unflatten(changed, spec, self.carry.signature)


def flatten(features: Features) -> tuple[list[Any], pytree.TreeSpec]:
    """Return the leaves of `features` (tensors and constants) and their structure, without the signature."""
    return pytree.tree_flatten((features.carry.a, features.carry.kept, features.f))


def unflatten(leaves: Sequence[Any], spec: pytree.TreeSpec, signature: Any) -> Features:
    """Undo `flatten`."""
    a, kept, f = pytree.tree_unflatten(leaves, spec)
    return Features(Carry(a, kept, signature), f)


def teach(
    model: ShortcutV2V, adapter: Adapter, frames: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Features | None, Any]]:
    """Run the teacher on a video, frame after frame, with the adapter's recurrent state, under `torch.no_grad()`.

    Args:
        model: a wrapped teacher.
        adapter: how frames become its inputs.
        frames: (B, C, H, W) each, in [0, 1], as the teacher takes them.

    Yields:
        The frame; its features, None if the adapter opens with an output of its own; and the output if there is one:
        the adapter's own, or that of a recurrent teacher, whose tail has to run.
    """
    features: Features | None = None

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal features
        carry = model.head(*args, **kwargs)
        features = Features(carry, model.middle(carry))
        return model.tail(carry, features.f) if adapter.recurrent else None

    player = Player(adapter, run)
    for frame in frames:
        features = None
        output = player(frame).output
        yield frame, features, output


def features_of(model: ShortcutV2V, adapter: Adapter, frames: Iterable[Tensor]) -> Iterator[tuple[int, Features]]:
    """Yield number and features of every frame that the teacher makes, from uint8 frames (B, C, H, W).

    Frames that the adapter opens with are left out. Consume the result under `torch.no_grad()`.
    """
    device, dtype = placement(model.teacher)
    pictures = ((frame.to(device).float() / 255).to(dtype) for frame in frames)
    for number, (_, features, _) in enumerate(teach(model, adapter, pictures)):
        if features is not None:
            yield number, features


def collate(samples: Sequence[Sequence[Features]]) -> list[Features]:
    """Stack samples of T `Features` each to a batch: T `Features` of batch size `len(samples)`.

    For `DataLoader(collate_fn=...)`. Values stay in the dtype of the cache, half as many bytes, until a `Binder` casts
    them.

    Raises:
        InputError: the samples differ in size, or a feature is not per frame and cannot be stacked.

    Examples:
        >>> sample = [Features(Carry((torch.zeros(1, 4, 8, 8),), ()), (torch.zeros(1, 4, 8, 8),))] * 2
        >>> batch = collate([sample, sample, sample])
        >>> len(batch), batch[0].f[0].shape
        (2, torch.Size([3, 4, 8, 8]))
    """
    return [_stacked(column) for column in zip(*samples, strict=True)]


def _stacked(column: Sequence[Features]) -> Features:
    signatures = {features.carry.signature for features in column}
    if len(signatures) > 1:
        raise InputError(f"features of different frames {sorted(map(str, signatures))} make no batch: give crop=(h, w)")
    flat = [flatten(features) for features in column]
    leaves = [_joined(leaf) for leaf in zip(*(leaves for leaves, _ in flat), strict=True)]
    return unflatten(leaves, flat[0][1], signatures.pop())


def _joined(leaves: Sequence[Any]) -> Any:
    first = leaves[0]
    if not isinstance(first, Tensor):
        return first
    if first.dim() and first.shape[0] == 1:
        return torch.cat(list(leaves))
    if not all(torch.equal(first, leaf) for leaf in leaves[1:]):
        raise InputError(
            f"a tensor {tuple(first.shape)} of the head has no batch dimension and changes from frame to frame, so "
            "frames make no batch: give batch_size=1"
        )
    return first.clone()


class Binder:
    """Turns cached features into those that the model's own head would return now.

    The signature of a carry names batch size, device, autocast state and training flags, which only the training
    process knows. The head runs once on a blank batch for each combination.

    Args:
        model: the wrapped teacher.
        adapter: how frames become its inputs; default: the frame itself.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> stored = Features(Carry((torch.rand(2, 3, 8, 8).bfloat16(),), (), Unbound((3, 8, 8))), ())
        >>> Binder(model)(stored).carry.a[0].dtype
        torch.float32
    """

    def __init__(self, model: ShortcutV2V, adapter: Adapter | None = None) -> None:
        self.model = model
        self.adapter = adapter or Adapter.of(model)
        self._known: dict[Any, Features] = {}

    @torch.no_grad()
    def __call__(self, features: Features) -> Features:
        """Return the features on the model's device, in its dtypes, with a carry that `tail()` and `predict()` accept.

        Features that were never on disk come back unchanged.

        Raises:
            InputError: they are not of this model.
        """
        carry, f = features
        if not isinstance(carry.signature, Unbound):
            return features
        like = self.like(carry.a[0].shape[0], carry.signature.frame, middle=False)
        own, spec = pytree.tree_flatten((like.carry.a, like.carry.kept))
        stored, found = pytree.tree_flatten((carry.a, carry.kept))
        if spec != found:
            raise InputError("these cached features belong to another model: make them with a FeatureCache of this one")
        a, kept = pytree.tree_unflatten([_fitted(s, o) for s, o in zip(stored, own, strict=True)], spec)
        cast = tuple(tensor.to(a[0].device, a[0].dtype) for tensor in f)
        return Features(Carry(a, kept, like.carry.signature), cast)

    @torch.no_grad()
    def like(self, batch: int, frame: FrameShape, *, middle: bool = True) -> Features:
        """Return features of `batch` blank frames: shapes and dtypes are right, values are not.

        Args:
            batch: batch size.
            frame: (C, H, W).
            middle: whether `f` is asked for, too; it costs the teacher's middle.
        """
        where, dtype = placement(self.model.teacher)
        key = (batch, frame, where, dtype, modes(list(self.model.teacher.modules())), autocast_state(), middle)
        if key not in self._known:
            blank = torch.zeros(batch, *frame, dtype=dtype, device=where)
            made = self._first(blank, middle)
            self._known[key] = made.map(lambda t: torch.empty((), dtype=t.dtype, device=t.device).expand(t.shape))
        return self._known[key]

    def _first(self, blank: Tensor, middle: bool) -> Features:
        """Return the features of the first frame that the adapter does not open with itself."""
        found: list[Features] = []

        def run(*args: Any, **kwargs: Any) -> Any:
            carry = self.model.head(*args, **kwargs)
            found.append(Features(carry, self.model.middle(carry) if middle else ()))
            raise _EnoughError

        player = Player(self.adapter, run)
        with contextlib.suppress(_EnoughError):
            for _ in range(_OPENING):
                player(blank)
        if not found:
            raise InputError(f"the adapter lets the teacher run on none of {_OPENING} frames")
        return found[0]


class _EnoughError(ShortcutError):
    """Ends a video after the first frame of the teacher."""


def _fitted(stored: Any, own: Any) -> Any:
    """Return a leaf of cached features as the model's own; constants of a capture are the model's."""
    if not isinstance(own, Tensor):
        return own
    if own.dim() and own.shape[0] == 1 < stored.shape[0]:
        stored = stored[:1]  # one for the whole batch, which `collate` could not know
    if stored.shape != own.shape:
        raise InputError(
            f"cached features of shape {tuple(stored.shape)}, but this model's are {tuple(own.shape)}: they belong to "
            "another model or another size of frames"
        )
    return stored.to(own.device, own.dtype)
