"""One frame around the model, as named tensors: from a program's inputs to the teacher's, and from the output back.

A program has one structure for all frames of a video. Recurrent state is therefore an input and an output of it, and
the tensor `begins` says that the state is not there yet, so that the program starts from `Adapter.start()` instead. If
an adapter paints the first frames itself, each of them becomes a program of its own, and there is no `begins`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from shortcutv2v.adapter import Adapter
from shortcutv2v.errors import ExportError
from shortcutv2v.player import Player, cropped

__all__ = ["AdapterStep", "Named", "TeacherStep", "named_leaves"]

Named = dict[str, Tensor]
_MOST = 8
"""Frames that an adapter may paint itself."""


class TeacherStep:
    """The teacher's own inputs and outputs, by the names of its `forward()`.

    Args:
        teacher: the generator.
        args: its positional inputs. Whatever is no tensor becomes a constant of the programs.

    Attributes:
        examples: the program's inputs by name, in order, without the reference.
        recurrent: input name -> output name of the state that goes from frame to frame.
        openings: the states before those frames that an adapter paints itself.
        picture: form of the pictures that go in and out: "unit" or "pixels"; None if the tensors are the teacher's own.
    """

    picture: str | None = None

    def __init__(self, teacher: nn.Module, args: tuple[Any, ...]) -> None:
        self.examples = dict(named_leaves("", inspect.signature(teacher.forward).bind(*args).arguments))
        self.recurrent: dict[str, str] = {}
        self.openings: list[Any] = []
        self._args: Any = args

    def sides(self, x: Tensor) -> tuple[int, ...]:
        """Return the axes of an input that are height and width."""
        pixels = self.picture == "pixels" and x.dtype == torch.uint8
        return () if x.dim() != 4 else (1, 2) if pixels else (2, 3)

    def inputs(self, given: Named) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the teacher's positional and keyword inputs."""
        return _filled(self._args, iter(given.values())), {}

    def results(self, given: Named, output: Any) -> Named:
        """Return the program's outputs by name, from the teacher's output."""
        return dict(named_leaves("output", output))


class AdapterStep(TeacherStep):
    """A frame of the video in, a picture out, and the adapter's state beside them.

    Args:
        adapter: the teacher's.
        frame: an example, (B, C, H, W) in [0, 1].
        pixels: take and return uint8 (B, H, W, 3) instead.

    Raises:
        ExportError: the adapter paints every frame itself, or its state changes its structure.
    """

    def __init__(self, adapter: Adapter, frame: Tensor, pixels: bool) -> None:
        self.adapter, self.picture = adapter, "pixels" if pixels else "unit"
        *self.openings, self._settled = _states(adapter, frame)
        shown = (frame * 255).round().byte().permute(0, 2, 3, 1).contiguous() if pixels else frame
        self.examples = {"frame": shown, **{name: torch.zeros_like(x) for name, x in _named_state(self._settled)}}
        if len(self.examples) > 1 and not self.openings:
            self.examples["begins"] = torch.ones(1, dtype=torch.bool, device=frame.device)
        self.recurrent = {name: f"{name}_next" for name in self.examples if name != "frame"}

    def inputs(self, given: Named) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the adapter's inputs: those of a first frame where the video begins."""
        frame = self.adapter.pad(self.frame(given))
        inputs: Any = self.adapter.inputs(frame, self._state(given, self._settled))
        if "begins" in given:
            inputs = _either(given["begins"], self.adapter.inputs(frame, self.adapter.start()), inputs)
        return inputs[0], inputs[1]

    def results(self, given: Named, output: Any) -> Named:
        """Return the picture and the next state."""
        return self._results(given, output, self._state(given, self._settled))

    def opening_examples(self, index: int) -> Named:
        """Return the inputs of the program that paints the frame of that number."""
        return {"frame": self.examples["frame"], **dict(_named_state(self.openings[index]) if index else ())}

    def opening(self, index: int, given: Named) -> Named:
        """Return what `results` does, for a frame that the adapter paints."""
        state = self._state(given, self.openings[index]) if index else self.adapter.start()
        return self._results(given, self.adapter.opening(self.adapter.pad(self.frame(given)), state), state)

    def _results(self, given: Named, output: Any, state: Any) -> Named:
        frame = self.frame(given)
        padded = self.adapter.pad(frame)
        picture = self.shown(cropped(self.adapter.image(output), frame.shape[-2:], padded.shape[-2:]))
        after = self.adapter.advance(state, padded, output)
        if "begins" not in given:
            return {"picture": picture, **{f"{name}_next": x for name, x in _named_state(after)}}
        after = _either(given["begins"], self.adapter.advance(self.adapter.start(), padded, output), after)
        ended = {"begins_next": torch.zeros_like(given["begins"])}
        return {"picture": picture, **{f"{name}_next": x for name, x in _named_state(after)}, **ended}

    def shown(self, picture: Tensor) -> Tensor:
        """Return a picture as the programs give it."""
        unit = self.picture == "unit"
        return picture if unit else (picture.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)

    def frame(self, given: Named) -> Tensor:
        """Return the frame (B, C, H, W) in [0, 1] among a program's inputs."""
        frame = given["frame"]
        return frame.permute(0, 3, 1, 2).float() / 255 if self.picture == "pixels" else frame

    def _state(self, given: Named, like: Any) -> Any:
        return _filled(like, (given[name] for name, _ in _named_state(like)))


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


def _named_state(state: Any) -> Iterator[tuple[str, Tensor]]:
    return named_leaves("state", state)


def _filled(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """The tree with other tensors in the places of its own."""
    return pytree.tree_map_only(Tensor, lambda _: next(tensors), tree)


def _either(begins: Tensor, first: Any, later: Any) -> Any:
    """Choose between two trees of one structure, tensor by tensor."""
    return pytree.tree_map(lambda a, b: torch.where(begins, a, b) if isinstance(a, Tensor) else a, first, later)


def _states(adapter: Adapter, frame: Tensor) -> list[Any]:
    """The states before the frames that the adapter paints itself, and the one that has the structure of all later."""
    player, states = Player(adapter, adapter.teacher), []
    while adapter.opening(adapter.pad(frame), player.state) is not None:
        states.append(player.state)
        player(frame)
        if len(states) > _MOST:
            raise ExportError(
                f"{type(adapter).__name__} paints more than {_MOST} frames of a video itself (`opening`), and each "
                "would be a program: let `opening` return None once the teacher can take over"
            )
    if not adapter.recurrent:
        return [*states, adapter.start()]
    if not states:
        player(frame)
    settled, forms = player.state, []
    for _ in range(3):
        leaves, spec = pytree.tree_flatten(player.state)
        forms.append((spec, [(x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves]))
        player(frame)
    if forms[1:] != forms[:-1]:
        raise ExportError(
            f"the state of {type(adapter).__name__} changes its structure after the first frame, and a program has "
            "one for all: let `advance()` return the full structure at once"
        )
    return [*states, settled]
