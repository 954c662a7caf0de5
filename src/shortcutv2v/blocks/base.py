"""Base of all Shortcut blocks: the interface, the choice of the variant, and the containers that blocks return."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from shortcutv2v.blocks.alignment import resize
from shortcutv2v.blocks.both import share_of_second
from shortcutv2v.errors import InputError

__all__ = ["DEFAULT_VARIANT", "Prediction", "ShortcutBlock", "default_width"]

DEFAULT_VARIANT = "flow"
"""The variant that measured best at equal training time; see docs/quality.md."""

_WIDTH_AT_THE_END = 32
"""Most channels that a block gets by default where `f` is narrow."""

_COMPILED = ("encode_reference", "predict", "analyse", "analyse_both")

_CELL = 8
"""Pixels of the cells in which two references are weighed."""


def default_width(a_channels: int, f_channels: int) -> int:
    """Return a block's width h if none is given: half of `f`'s channels, as in the paper.

    Where `f` has less than half of `a`'s channels, as after a teacher's last layer, it is half of `a`'s, up to 32:
    motion and change are found in `a`, and there is as much of them.

    Examples:
        >>> default_width(128, 128), default_width(128, 64), default_width(64, 3), default_width(256, 48)
        (64, 32, 32, 32)
    """
    narrow = 2 * f_channels < a_channels
    return max(1, f_channels // 2, min(a_channels // 2, _WIDTH_AT_THE_END) if narrow else 1)


class Prediction(NamedTuple):
    """Prediction of a block and its intermediate results, for losses, refresh policies and pictures.

    Attributes:
        f_hat: the predicted features, (B, C_f, H, W).
        f_star: `f*_ref`, the aligned reference without features of the current frame, (B, C_f, H, W) (equation 7).
        global_offset: `dp_g`, (B, 2, H/2, W/2), (dy, dx) in half-resolution pixels.
        local_offset: `dp_l`, (B, 2*K, H, W), (dy, dx) per tap in pixels; K is 9, or 1 if one offset serves all taps.
            The offset maps of `flow` have half these sizes, with pixels twice as large.
        mask: `m_b`, (B, 9, H, W), in [0, 1]; 1 takes the current frame. None if the variant does not blend.
    """

    f_hat: Tensor
    f_star: Tensor
    global_offset: Tensor
    local_offset: Tensor
    mask: Tensor | None

    @property
    def unexplained(self) -> Tensor:
        """The size of what motion did not explain: the mean square of `f_hat - f_star`, (B,), at least 0.

        It orders the frames of a clip by their error; its level differs from clip to clip.
        """
        return (self.f_hat - self.f_star).float().square().flatten(1).mean(1)


class _Choice(type):
    """Metaclass of `ShortcutBlock`: a call of the base class makes the variant that it names."""

    def __call__(cls, *args: Any, variant: str | None = None, **kwargs: Any) -> Any:
        """Make a block, and keep its constructor arguments for the recipe."""
        kind = ShortcutBlock.of_variant(variant or DEFAULT_VARIANT) if cls is ShortcutBlock else cls
        if variant not in (None, kind.variant):  # type: ignore[attr-defined]
            raise InputError(f"unknown variant {variant!r}: expected {kind.variant}")  # type: ignore[attr-defined]
        block = super(_Choice, kind).__call__(*args, **kwargs)
        block.arguments = _arguments(block, args, kwargs)
        return block


def _arguments(block: ShortcutBlock, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the constructor's arguments by name, defaults included, without `variant`."""
    signature = inspect.signature(block.__init__)  # type: ignore[misc]
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            found |= zip(("a_channels", "f_channels", "channels"), value, strict=False)
        elif signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif name != "variant":
            found[name] = value
    return found


class ShortcutBlock(nn.Module, metaclass=_Choice):
    """Predicts `f_t` from `f_ref`, `a_ref` and `a_t`. `ShortcutBlock(..., variant=name)` gives the variant's class.

    | variant | result                                                               | untrained      | still scene |
    |---------|----------------------------------------------------------------------|----------------|-------------|
    | `paper` | the published block, published initialisation                        | arbitrary      | approximate |
    | `flow`  | `f_ref` warped coarse-to-fine + a correction, most of it at half size | `f_ref`, exact | exact       |

    `reuse` returns `f_ref`, has no weights and cannot be trained; `auto` uses it for short films. For comparison only,
    `paper` with one part taken away (Table 3, (a) to (d); `paper` is (e)): `without_reference`, `without_current`,
    `single_stage`, `without_blending`.

    Args:
        a_channels: channels C_a of the encoder features.
        f_channels: channels C_f of the features to predict.
        channels: reduced width h; the paper uses C_f / 2, see `default_width`.
        variant: a key of `ShortcutBlock.variants`.

    Shape:
        f_ref (B, C_f, H, W), a_ref and a_t (B, C_a, H, W) -> (B, C_f, H, W); any B, H, W.

    Raises:
        InputError: an unknown variant, or widths below 1.

    Examples:
        >>> import torch
        >>> block = ShortcutBlock(a_channels=6, f_channels=10, channels=5, variant="flow")
        >>> f_ref, a_ref, a_t = torch.rand(1, 10, 7, 9), torch.rand(1, 6, 7, 9), torch.rand(1, 6, 7, 9)
        >>> torch.equal(block(f_ref, a_ref, a_t), f_ref)  # untrained: plain reuse
        True
    """

    variants: ClassVar[dict[str, type[ShortcutBlock]]] = {}
    variant: ClassVar[str] = ""
    arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class under its `variant`.

        Raises:
            InputError: another class has that name. A class may be defined again, as a notebook or a reload does.
        """
        super().__init_subclass__(**kwargs)
        if not cls.__dict__.get("variant"):
            return
        other = ShortcutBlock.variants.get(cls.variant, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(
                f"the variant {cls.variant!r} of {cls.__module__}.{cls.__qualname__} is taken by "
                f"{other.__module__}.{other.__qualname__}: give your block another `variant`"
            )
        ShortcutBlock.variants[cls.variant] = cls

    @staticmethod
    def of_variant(name: str) -> type[ShortcutBlock]:
        """Return the class of the variant `name`.

        Raises:
            InputError: no class of that name is registered.

        Examples:
            >>> ShortcutBlock.of_variant("flow").__name__
            'FlowBlock'
        """
        if name == "reuse":
            importlib.import_module("shortcutv2v.blocks.reuse")
        if name not in ShortcutBlock.variants:
            known = ", ".join(ShortcutBlock.variants)
            raise InputError(
                f"unknown variant {name!r}: expected one of {known}. If it is your own, import the module that defines "
                "it first"
            )
        return ShortcutBlock.variants[name]

    def __init__(self, a_channels: int, f_channels: int, channels: int, variant: str | None = None) -> None:
        super().__init__()
        if min(a_channels, f_channels, channels) < 1:
            raise InputError(
                f"a block needs at least one channel everywhere, got a_channels={a_channels}, "
                f"f_channels={f_channels}, channels={channels}"
            )
        self.a_channels, self.f_channels, self.channels = a_channels, f_channels, channels

    def extra_repr(self) -> str:
        """Return the arguments in the form in which they are typed."""
        options = {key: value for key, value in self.arguments.items() if key not in ("a_channels", "f_channels")}
        typed = (f"{key}={value!r}" for key, value in {**options, "variant": self.variant}.items())
        return ", ".join([str(self.a_channels), str(self.f_channels), *typed])

    def encode_reference(self, f_ref: Tensor, a_ref: Tensor) -> Any:
        """Compute everything that depends on the reference alone. It runs once per refresh, not once per frame.

        Args:
            f_ref: (B, C_f, H, W).
            a_ref: (B, C_a, H, W).

        Returns:
            A pytree of tensors for `predict` and `analyse`.
        """
        raise NotImplementedError

    def predict(self, state: Any, a_t: Tensor) -> Tensor:
        """Predict `f_t` (B, C_f, H, W) from the reference's state and `a_t` (B, C_a, H, W)."""
        raise NotImplementedError

    def analyse(self, state: Any, a_t: Tensor) -> Prediction:
        """Predict as `predict` does, and return the intermediate results, too."""
        raise NotImplementedError

    def analyse_both(self, first: Any, second: Any, a_t: Tensor) -> Prediction:
        """Predict from two references, each of which counts where it leaves less unexplained.

        Here, `analyse` runs for each, and `f_hat` is mixed by the sizes of `f_hat - f_star`; variants may do it in one.

        Args:
            first: the state of one reference, from `encode_reference`.
            second: that of the other.
            a_t: (B, C_a, H, W).

        Returns:
            The mixed `f_hat`, and the rest of one of them.
        """
        one, other = self.analyse(first, a_t), self.analyse(second, a_t)
        share = share_of_second(one.f_hat - one.f_star, other.f_hat - other.f_star, _CELL)
        return one._replace(
            f_hat=torch.lerp(one.f_hat, other.f_hat, resize(share, (one.f_hat.shape[-2], one.f_hat.shape[-1])))
        )

    def own_dtype(self, x: Tensor) -> Tensor:
        """Return a feature map in the dtype of the block's weights; under autocast as it is.

        Features may be of another dtype than the weights: in teachers of mixed precision, after `teacher.half()`, or
        when a block was saved in half precision. Whoever calls a block with a teacher's features casts them by this.
        """
        weight = next(self.parameters(), None)
        autocast = x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)
        return x if weight is None or autocast else x.to(weight.dtype)

    def forward(self, f_ref: Tensor, a_ref: Tensor, a_t: Tensor) -> Tensor:
        """Predict in one call; see the class for shapes."""
        return self.predict(self.encode_reference(f_ref, a_ref), a_t)

    def compile(self, **options: Any) -> None:
        """Compile `encode_reference`, `predict`, `analyse` and `analyse_both` with `torch.compile(**options)`.

        A copy or a pickle of the block is not compiled.
        """
        for name in _COMPILED:
            setattr(self, name, torch.compile(getattr(type(self), name).__get__(self), **options))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without compiled code."""
        state: dict[str, Any] = super().__getstate__()
        return {key: value for key, value in state.items() if key not in _COMPILED}

    @staticmethod
    def from_authors(state_dict: Mapping[str, Tensor]) -> ShortcutBlock:
        """Return the published Shortcut checkpoint as a `paper` block.

        Args:
            state_dict: the content of `latest_net_ShortcutV2V.pth`.

        Raises:
            CheckpointError: its keys or shapes are not those of a published block.
        """
        from shortcutv2v.blocks import authors
        from shortcutv2v.blocks.loading import load_exactly

        translated = authors.rename_entries(state_dict)
        channels, f_channels = translated["reduce_f.0.weight"].shape[:2]
        a_channels = translated["reduce_a.0.weight"].shape[1]
        block = ShortcutBlock(a_channels, f_channels, channels, variant="paper")
        load_exactly(block, translated, authors.SOURCE)
        return block
