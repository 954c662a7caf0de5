"""The teacher's features of a frame as data: computed, batched, and given back to the model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import InputError
from shortcutv2v.graph.signature import autocast_state, modes
from shortcutv2v.model import ShortcutV2V, placement
from shortcutv2v.player import FullPass, Player
from shortcutv2v.types import Carry

__all__ = ["Binder", "Features", "FrameShape", "Unbound", "collate", "features_of", "first_features", "teach"]

FrameShape = tuple[int, int, int]
"""(C, H, W)"""
_OPENING = 64


class Unbound(NamedTuple):
    """The shape of the frame, instead of the signature of a carry that came from disk; a `Binder` replaces it."""

    frame: FrameShape


class Features:
    """The teacher's work on one frame, a pytree: unpacks as `carry, f`. Lightning moves it as a whole, by `to()`.

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
        changed: Features = pytree.tree_map_only(Tensor, change, self)
        return changed

    def signed(self, signature: Hashable) -> Features:
        """Return the same features with another signature of the carry."""
        return Features(dataclasses.replace(self.carry, signature=signature), self.f)


pytree.register_pytree_node(Features, lambda made: (list(made), None), lambda parts, _: Features(*parts))


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
    full = FullPass(model, tail=adapter.recurrent)
    player = Player(adapter, full)
    for frame in frames:
        played = player(frame)
        yield frame, None if played.opening else Features(full.carry, full.f), played.output


def features_of(model: ShortcutV2V, adapter: Adapter, frames: Iterable[Tensor]) -> Iterator[tuple[int, Features]]:
    """Yield number and features of every frame that the teacher makes, from uint8 frames (B, C, H, W).

    Frames that the adapter opens with are left out. Consume the result under `torch.no_grad()`.
    """
    device, dtype = placement(model.teacher)
    pictures = ((frame.to(device).float() / 255).to(dtype) for frame in frames)
    for number, (_, features, _) in enumerate(teach(model, adapter, pictures)):
        if features is not None:
            yield number, features


@torch.no_grad()
def first_features(model: ShortcutV2V, adapter: Adapter, frame: Tensor) -> Features | None:
    """Return the features of a still video of a uint8 frame (B, C, H, W), None if the adapter makes it all itself."""
    return next((found for _, found in features_of(model, adapter, itertools.repeat(frame, _OPENING))), None)


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
    frames = {features.carry.signature for sample in samples for features in sample}
    if len(frames) > 1:
        raise InputError(f"features of different frames {sorted(map(str, frames))} make no batch: give crop=(h, w)")
    batch: list[Features] = pytree.tree_map(_joined, *map(list, samples))
    return batch


def _joined(first: Any, *others: Any) -> Any:
    if not isinstance(first, Tensor):
        return first
    if first.dim() and first.shape[0] == 1:
        return torch.cat([first, *others])
    if not all(torch.equal(first, leaf) for leaf in others):
        raise InputError(
            f"a tensor {tuple(first.shape)} of the head has no batch dimension and changes from frame to frame, so "
            "frames make no batch: give batch_size=1"
        )
    return first.clone()


class Binder:
    """Turns cached features into those that the model's own head would return now.

    The signature of a carry names batch size, device, autocast state and training flags, which only the training
    process knows. The teacher runs once on a blank batch for each combination.

    Args:
        model: the wrapped teacher.
        adapter: how frames become its inputs; default: the frame itself.

    Examples:
        >>> import shortcutv2v
        >>> teacher = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
        >>> model = shortcutv2v.wrap(teacher, "0", "2", example_inputs=(torch.rand(1, 3, 8, 8),))
        >>> signature, a, f = Unbound((3, 8, 8)), torch.rand(2, 3, 8, 8).bfloat16(), torch.rand(2, 3, 8, 8).bfloat16()
        >>> Binder(model)(Features(Carry((a,), (), signature), (f,))).carry.a[0].dtype
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
        signature: Any = features.carry.signature
        if not isinstance(signature, Unbound):
            return features
        own = self.like(features.carry.a[0].shape[0], signature.frame)
        stored, found = pytree.tree_flatten(features.signed(own.carry.signature))
        leaves, spec = pytree.tree_flatten(own)
        if spec != found:
            raise InputError("these cached features belong to another model: make them with a FeatureCache of this one")
        bound: Features = pytree.tree_unflatten(map(_fitted, stored, leaves), spec)
        return bound

    def like(self, batch: int, frame: FrameShape) -> Features:
        """Return features of `batch` blank frames (C, H, W): shapes and dtypes are right, values are not.

        Raises:
            InputError: the adapter lets the teacher run on no frame.
        """
        where = placement(self.model.teacher)
        key = (batch, frame, where, modes(list(self.model.teacher.modules())), autocast_state())
        if key not in self._known:
            made = first_features(self.model, self.adapter, torch.zeros(batch, *frame, dtype=torch.uint8))
            if made is None:
                raise InputError(f"the adapter lets the teacher run on none of {_OPENING} frames")
            self._known[key] = made.map(lambda t: torch.empty((), dtype=t.dtype, device=t.device).expand(t.shape))
        return self._known[key]


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
