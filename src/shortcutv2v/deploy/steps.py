"""One frame around the model, as named tensors: from a program's inputs to the teacher's, and from the output back.

A program has one structure for all frames of a video. Recurrent state is therefore an input and an output of it, and
the tensor `begins` says that the state is not there yet, so that the program starts from `Adapter.start()` instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import ExportError
from shortcutv2v.player import Player, cropped

__all__ = ["AdapterStep", "Named", "Step", "TeacherStep", "named_leaves"]

Named = dict[str, Tensor]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class Step(Protocol):
    """Steps around the model's passes in a program.

    Attributes:
        examples: the program's inputs by name, in order, without the reference.
        recurrent: input name -> output name of the state that goes from frame to frame.
        picture: whether the first input and the only output are pictures, and in which form.
    """

    examples: Named
    recurrent: dict[str, str]
    picture: str | None

    def sides(self, x: Tensor) -> tuple[int, ...]:
        """Return the axes of an input that are height and width."""
        ...

    def inputs(self, given: Named) -> Inputs:
        """Return the teacher's inputs."""
        ...

    def results(self, given: Named, output: Any) -> Named:
        """Return the program's outputs by name, from the teacher's output."""
        ...


class TeacherStep:
    """The teacher's own inputs and outputs, by the names of its `forward()`.

    Args:
        teacher: the generator.
        args: its positional inputs. Whatever is no tensor becomes a constant of the programs.
    """

    def __init__(self, teacher: nn.Module, args: tuple[Any, ...]) -> None:
        bound = inspect.signature(teacher.forward).bind(*args).arguments
        self.examples = dict(named_leaves("", bound))
        self.recurrent: dict[str, str] = {}
        self.picture: str | None = None
        self._leaves, self._spec = pytree.tree_flatten(args)

    def sides(self, x: Tensor) -> tuple[int, ...]:
        """Return the last two of four axes."""
        return (2, 3) if x.dim() == 4 else ()

    def inputs(self, given: Named) -> Inputs:
        """Put the tensors where they belong."""
        tensors = iter(given.values())
        leaves = [next(tensors) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args: tuple[Any, ...] = pytree.tree_unflatten(leaves, self._spec)
        return args, {}

    def results(self, given: Named, output: Any) -> Named:
        """Name the tensors of the output."""
        return dict(named_leaves("output", output))


class AdapterStep:
    """A frame of the video in, a picture out, and the adapter's state beside them.

    Args:
        adapter: the teacher's.
        frame: an example, (B, C, H, W) in [0, 1].
        pixels: take and return uint8 (B, H, W, 3) instead.

    Raises:
        ExportError: the adapter paints the first frames itself, or its state changes its structure after the first
            frame.
    """

    def __init__(self, adapter: Adapter, frame: Tensor, pixels: bool) -> None:
        self.adapter = adapter
        self.picture: str | None = "pixels" if pixels else "unit"
        shown = (frame * 255).round().byte().permute(0, 2, 3, 1).contiguous() if pixels else frame
        self.examples = {"frame": shown}
        state = _settled(adapter, frame)
        leaves, self._spec = pytree.tree_flatten(state)
        self._others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        carried = {f"state_{name}": torch.zeros_like(leaf) for name, leaf in named_leaves("", state)}
        if carried:
            self.examples |= carried | {"begins": torch.ones(1, dtype=torch.bool, device=frame.device)}
        self.recurrent = {name: f"{name}_next" for name in (*carried, "begins") if carried}

    def sides(self, x: Tensor) -> tuple[int, ...]:
        """Return the axes of height and width, which differ between pixels and feature maps."""
        return () if x.dim() != 4 else (1, 2) if x.dtype == torch.uint8 else (2, 3)

    def inputs(self, given: Named) -> Inputs:
        """Return the adapter's inputs: those of a first frame where the video begins."""
        frame = self.adapter.pad(self._frame(given))
        inputs = self.adapter.inputs(frame, self._state(given))
        if not self.recurrent:
            return inputs
        chosen: Inputs = _either(given["begins"], self.adapter.inputs(frame, self.adapter.start()), inputs)
        return chosen

    def results(self, given: Named, output: Any) -> Named:
        """Return the picture and the next state."""
        given_size = self._frame(given).shape[-2:]
        frame = self.adapter.pad(self._frame(given))
        picture = cropped(self.adapter.image(output), given_size, frame.shape[-2:])
        if self.picture == "pixels":
            picture = (picture.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        if not self.recurrent:
            return {"picture": picture}
        first = self.adapter.advance(self.adapter.start(), frame, output)
        state = _either(given["begins"], first, self.adapter.advance(self._state(given), frame, output))
        after = [leaf for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor)]
        ended = torch.zeros_like(given["begins"])
        return {"picture": picture, **dict(zip(self.recurrent.values(), [*after, ended], strict=True))}

    def _frame(self, given: Named) -> Tensor:
        frame = given["frame"]
        return frame.permute(0, 3, 1, 2).float() / 255 if self.picture == "pixels" else frame

    def _state(self, given: Named) -> Any:
        if not self.recurrent:
            return self.adapter.start()
        tensors = iter(given[name] for name in self.recurrent)
        return pytree.tree_unflatten([next(tensors) if x is None else x for x in self._others], self._spec)


def named_leaves(prefix: str, tree: Any) -> Iterator[tuple[str, Tensor]]:
    """Name the tensors of a tree by their way through it, in terms that are identifiers everywhere.

    Examples:
        >>> [name for name, _ in named_leaves("f", {"maps": [torch.ones(1), torch.ones(1)], "size": 3})]
        ['f_maps_0', 'f_maps_1']
    """
    for path, leaf in pytree.tree_flatten_with_path(tree)[0]:
        parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
        if isinstance(leaf, Tensor):
            yield "_".join([*([prefix] if prefix else []), *parts]), leaf


def _either(begins: Tensor, first: Any, later: Any) -> Any:
    """Choose between two trees of one structure, tensor by tensor."""
    return pytree.tree_map(lambda a, b: torch.where(begins, a, b) if isinstance(a, Tensor) else a, first, later)


def _settled(adapter: Adapter, frame: Tensor) -> Any:
    """The state after a frame, which must have the structure of all later ones."""
    if not adapter.recurrent:
        return None
    if adapter.opening(frame, adapter.start()) is not None:
        raise ExportError(
            f"{type(adapter).__name__} paints the first frames of a video itself (`opening`), and programs hold the "
            "teacher alone: export with an adapter that does not, such as vid2vid without `first=`"
        )
    player = Player(adapter, adapter.teacher)
    seen = []
    for _ in range(3):
        player(frame)
        leaves, spec = pytree.tree_flatten(player.state)
        seen.append((spec, [(x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves]))
    if seen[1:] != seen[:-1]:
        raise ExportError(
            f"the state of {type(adapter).__name__} changes its structure after the first frame, and a program has "
            "one for all: let `advance()` return the full structure at once"
        )
    return player.state
