"""The pure passes of a wrapped teacher: head, middle, tail, and the blocks between. Same inputs, same outputs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shortcutv2v.blocks import Prediction, ShortcutBlock
from shortcutv2v.blocks.alignment import laid_out_like
from shortcutv2v.errors import InputError
from shortcutv2v.graph import Capture, Cut, keep
from shortcutv2v.lazy import BlockMaker, LazyBlocks, materialising
from shortcutv2v.types import Carry, Reference, fits

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Passes", "placement", "replays"]

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


class Passes(LazyBlocks):
    """A captured teacher and its blocks. The base of `ShortcutV2V`, which adds streams, saving and calibration.

    Args:
        capture: the captured and cut teacher.
        blocks: one Shortcut block per branch, or a function that makes them once the shapes of `a` and `f` are known.
    """

    def __init__(self, capture: Capture, blocks: Sequence[ShortcutBlock] | BlockMaker) -> None:
        super().__init__(blocks)
        self.capture = capture
        self._compile_options: dict[str, Any] | None = None
        self.replays = False
        """True if `compile()` asked for CUDA graphs, whose results the next replay overwrites."""

    @property
    def teacher(self) -> nn.Module:
        """The wrapped module."""
        return self.capture.teacher

    @property
    def cut(self) -> Cut:
        """The cut."""
        return self.capture.cut

    def materialise(self, *args: Any, **kwargs: Any) -> Self:
        """Capture the teacher on these inputs and make the blocks, unless this has happened before.

        The first call of the model, of a stream, of `head()`, or `fit()` with its first frame does it by itself.

        Raises:
            CutError: the cut cannot be made; the subclasses say why and what to type next.
            CaptureError: the teacher cannot be captured.
        """
        with materialising, torch.inference_mode(False):
            if not self.materialised:
                maps, (device, dtype) = self.capture.at(args, kwargs).maps, placement(self.teacher)
                self.make_blocks(maps, device, torch.promote_types(dtype, maps.dtype))
                if self._compile_options is not None:
                    self.compile(**self._compile_options)
        return self

    def head(self, *args: Any, **kwargs: Any) -> Carry:
        """Run what `a` needs. Takes the teacher's inputs. Every pass begins here."""
        if not self.materialised:
            self.materialise(*args, **kwargs)
        if self.replays:
            torch.compiler.cudagraph_mark_step_begin()  # results of earlier steps may be overwritten from here on
        return self.capture.head(*args, **kwargs)

    def conditions(self, carry: Carry) -> list[Tensor]:
        """Return what the middle reads and no change of `a` tells of, such as a style vector: streams watch it."""
        return self.capture.of(carry).conditions(carry)

    def middle(self, carry: Carry) -> tuple[Tensor, ...]:
        """Run what lies between `a` and `f`.

        Returns:
            `f`, one (B, C_f, H, W) per branch; after them the leaking features kept by `on_leak="reuse"`.
        """
        return self.capture.of(carry).middle(carry)

    def fine_head(self, *args: Any, **kwargs: Any) -> Carry:
        """Run the head for `middle_in_parts()`: of a capture that looks into every module. Takes the teacher's inputs.

        Raises:
            InputError: the middle cannot run in parts, because the teacher is captured by hooks or compiled.
        """
        if self._compile_options is not None:
            raise InputError(
                "rolling=True runs the middle in parts, which compile() does not reach: leave one of them out"
            )
        if not self.materialised:
            self.materialise(*args, **kwargs)
        carry = self.capture.at(args, kwargs, fine=True).head(*args, **kwargs)
        self.middle_in_parts(carry, 2)  # refused now, or not at all
        return carry

    def middle_in_parts(self, carry: Carry, count: int) -> Iterator[tuple[Tensor, ...]]:
        """Run what `middle()` runs, in parts of about equal multiply-adds, one for every item that is asked for.

        Args:
            carry: as `fine_head()` returns it; with that of `head()`, no module that it runs as a whole is divided.
            count: number of parts, which are steps of the recorded middle in their order.

        Returns:
            An iterator over `count` items: empty ones, then `f`, bit for bit as `middle(carry)` returns it.

        Raises:
            InputError: the teacher is captured by hooks.

        Examples:
            >>> import shortcutv2v
            >>> teacher = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)))
            >>> model, frame = shortcutv2v.wrap(teacher, "0", "4"), torch.rand(1, 3, 8, 8)
            >>> carry = model.fine_head(frame)
            >>> *_, f = model.middle_in_parts(carry, 3)
            >>> torch.equal(f[0], model.middle(carry)[0])
            True
        """
        return self.capture.of(carry).middle_in_parts(carry, count)

    def tail(self, carry: Carry, f: tuple[Tensor, ...]) -> Any:
        """Run what the output needs once `f` is given.

        Args:
            carry: what the head handed on for the current frame.
            f: as `middle()` or `predict()` returns it.

        Returns:
            The output in the teacher's own structure.
        """
        output = self.capture.of(carry).tail(carry, f)
        return keep(output) if self.replays else output

    def make_reference(self, carry: Carry, f: tuple[Tensor, ...]) -> Reference:
        """Return the reference that a full pass leaves: `a`, `f`, and all that the blocks compute from them alone.

        Raises:
            InputError: the features have other channels than the blocks take.
        """
        taken = [(block.a_channels, block.f_channels) for block in self.blocks]
        given = [(a.shape[1], f_ref.shape[1]) for a, f_ref in zip(carry.a, f, strict=False)]
        if taken != given:
            raise InputError(f"the blocks take features of {taken} channels (a, f), but the cut gives {given}")
        state = tuple(
            block.encode_reference(block.own_dtype(f_ref), block.own_dtype(a_ref))
            for block, f_ref, a_ref in zip(self.blocks, f, carry.a, strict=False)
        )
        reference = Reference(carry.a, f, state)
        return keep(reference) if self.replays else reference

    def predict(self, reference: Reference, carry: Carry) -> tuple[Tensor, ...]:
        """`f` of the current frame as the blocks predict it; leaking features are those of the reference.

        Raises:
            InputError: the current features differ from those of the reference in number, shape, device or dtype.
        """
        _check_fits(reference, carry)
        predicted = tuple(
            _cast(block.predict(reference.state[i], block.own_dtype(carry.a[i])), reference, carry, i)
            for i, block in enumerate(self.blocks)
        )
        return predicted + reference.f[len(predicted) :]

    def analyse(self, reference: Reference, carry: Carry, also: Reference | None = None) -> tuple[Prediction, ...]:
        """Predict as `predict` does; return a full `Prediction` per branch, for losses, policies and pictures.

        With another reference, `also`, predictions are made of both, see `ShortcutBlock.analyse_both`.
        """
        inputs = [block.own_dtype(a) for block, a in zip(self.blocks, carry.a, strict=True)]
        _check_fits(reference, carry)
        if also is None:
            made = [block.analyse(*x) for block, *x in zip(self.blocks, reference.state, inputs, strict=True)]
        else:
            _check_fits(also, carry)
            states = reference.state, also.state
            made = [block.analyse_both(*x) for block, *x in zip(self.blocks, *states, inputs, strict=True)]
        return tuple(
            one._replace(f_hat=_cast(one.f_hat, reference, carry, i), f_star=_cast(one.f_star, reference, carry, i))
            for i, one in enumerate(made)
        )

    def compose(self, reference: Reference, carry: Carry, predictions: tuple[Prediction, ...]) -> tuple[Tensor, ...]:
        """Return `f` for `tail()` from what `analyse()` returned: the same numbers as `predict()`."""
        pairs = zip(predictions, carry.a, strict=True)
        predicted = tuple(laid_out_like(prediction.f_hat, a) for prediction, a in pairs)
        return predicted + reference.f[len(predicted) :]

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
        self.replays = replays(options)
        self._compile_options = options
        self.capture.compile(**options)
        if self.materialised:
            for block in self.blocks:
                block.compile(**options)


def replays(options: Mapping[str, Any]) -> bool:
    """Return True if `torch.compile(**options)` may record CUDA graphs.

    A program recorded as a CUDA graph writes its results into the same memory at every replay. Within one step torch
    keeps the results of one program apart from those of the next. `keep` copies what must outlive the step.

    >>> replays({"mode": "reduce-overhead"}), replays({"mode": "max-autotune-no-cudagraphs"}), replays({})
    (True, False, False)
    """
    inductor = options.get("options") or {}
    asked = options.get("mode") in ("reduce-overhead", "max-autotune") or bool(inductor.get("triton.cudagraphs"))
    return asked or options.get("backend") == "cudagraphs"


def _cast(predicted: Tensor, reference: Reference, carry: Carry, branch: int) -> Tensor:
    """Return a branch's prediction in the dtype that the tail expects; under autocast as it is."""
    a_ref, a_t, f = reference.a[branch], carry.a[branch], reference.f[branch]
    if f.device.type != "meta" and torch.is_autocast_enabled(f.device.type):
        return predicted
    # The teacher may have been cast to a wider dtype since the reference was made.
    return predicted.to(f.dtype if a_ref.dtype == a_t.dtype else torch.promote_types(f.dtype, a_t.dtype))


def _check_fits(reference: Reference, carry: Carry) -> None:
    if not fits(reference, carry):
        raise InputError(
            f"the reference was made from features of shape {_words(reference)}, the current frame gives "
            f"{_words(carry)}: call model.reference() on a frame like this one first"
        )


def _words(of: Reference | Carry) -> str:
    return ", ".join(f"{tuple(x.shape)} ({str(x.dtype).removeprefix('torch.')}, {x.device})" for x in of.a)


def placement(teacher: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return the device and dtype in which the teacher takes frames.

    They are those of its first convolution or linear layer, else of its first floating-point parameter, which may be a
    table in another precision; the defaults for a teacher without any.
    """
    # Not `module.weight`: a parametrization would compute it, and may change its state by that.
    layers = (module._parameters.get("weight") for module in teacher.modules() if isinstance(module, _LAYERS))
    for parameter in itertools.chain(layers, teacher.parameters()):
        if parameter is not None and parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.get_default_dtype()
