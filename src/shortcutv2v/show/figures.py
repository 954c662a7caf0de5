"""The paper's figures for any network, and contact sheets.

Sampling positions, blending masks, error maps, performance-efficiency.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shortcutv2v.blocks import Prediction
from shortcutv2v.blocks.alignment import enlarge_offset
from shortcutv2v.errors import InputError

__all__ = ["blending_masks", "contact_sheet", "efficiency", "error_maps", "motion", "sampling_positions"]

ERROR_RANGE = 0.1
"""Error that is drawn brightest, absolute and averaged over the colours; that of `contact_sheet`."""


def motion(prediction: Prediction, *, local: bool = True) -> Tensor:
    """Return where the block takes features from: (2, H, W), (dy, dx) in pixels of the features.

    Args:
        prediction: of one frame; of a batch, the first is taken.
        local: False for the global offsets alone. With several taps, the mean over the taps is added.

    Examples:
        >>> one = torch.ones(1, 2, 2, 3)
        >>> seen = Prediction(torch.zeros(1, 8, 4, 6), torch.zeros(1, 8, 4, 6), one, torch.ones(1, 18, 4, 6), None)
        >>> motion(seen).unique(), motion(seen, local=False).unique()
        (tensor([3.]), tensor([2.]))
    """
    size = (prediction.f_hat.shape[-2], prediction.f_hat.shape[-1])
    found = enlarge_offset(prediction.global_offset[:1], size)[0]
    if local:
        mean = prediction.local_offset[:1].unflatten(1, (-1, 2)).mean(1)
        found = found + enlarge_offset(mean, size)[0]
    return found


def positions(prediction: Prediction, point: tuple[float, float], *, local: bool = True) -> Tensor:
    """Return the places that the block samples for a point: (K, 2), (y, x), 0 to 1 as shares of the picture.

    Args:
        prediction: of one frame; of a batch, the first is taken.
        point: (y, x), 0 to 1.
        local: False for the global offsets alone.
    """
    height, width = prediction.f_hat.shape[-2:]
    y, x = (min(int(share * side), side - 1) for share, side in zip(point, (height, width), strict=True))
    taps = prediction.local_offset.shape[1] // 2
    grid = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)] if taps == 9 else [(0, 0)]
    place = torch.tensor([(y + 0.5 + i, x + 0.5 + j) for i, j in grid])
    place = place + motion(prediction, local=False)[:, y, x].cpu()
    if local:
        ratio = torch.tensor([height / prediction.local_offset.shape[-2], width / prediction.local_offset.shape[-1]])
        offsets = prediction.local_offset[0].unflatten(0, (-1, 2))
        place = place + offsets[:, :, int(y / ratio[0]), int(x / ratio[1])].float().cpu() * ratio
    return place / torch.tensor([float(height), float(width)])


def sampling_positions(
    reference: Tensor,
    current: Tensor,
    prediction: Prediction,
    path: str | Path,
    points: Sequence[tuple[float, float]] = ((0.3, 0.3), (0.5, 0.5), (0.7, 0.7)),
) -> None:
    """Draw figures 4 and 6: output points in the current frame, and where the reference is sampled for them.

    Args:
        reference: the reference's picture, (3, H, W) in [0, 1].
        current: the current picture, likewise.
        prediction: of the current frame.
        path: of the picture; its suffix gives the format.
        points: (y, x) each, 0 to 1.
    """
    shown = [("current frame", current, None), ("global offsets", reference, False)]
    shown.append(("global + local offsets", reference, True))
    figure, axes = _axes(1, len(shown), current)
    height, width = current.shape[-2:]
    for place, (title, picture, local) in zip(axes[0], shown, strict=True):
        place.imshow(_pixels(picture))
        place.set_title(title)
        for point in points:
            if local is not None:
                found = positions(prediction, point, local=local)
                place.plot(found[:, 1] * width, found[:, 0] * height, ".", color="red", ms=4)
            place.plot(point[1] * width, point[0] * height, "+", color="lime", ms=8)
    _save(figure, path)


def blending_masks(rows: Sequence[tuple[str, Tensor, Prediction]], path: str | Path) -> None:
    """Draw figure 7: frames, and their blending masks, mean over the taps; white takes the current frame.

    Args:
        rows: (label, picture (3, H, W) in [0, 1], prediction).
        path: of the picture; its suffix gives the format.

    Raises:
        InputError: the block blends nothing, as `flow` does.
    """
    if any(prediction.mask is None for _, _, prediction in rows):
        raise InputError("this block has no blending mask: train one with --variant paper")
    figure, axes = _axes(2, len(rows), rows[0][1])
    for (top, bottom), (label, picture, prediction) in zip(zip(*axes, strict=True), rows, strict=True):
        assert prediction.mask is not None  # noqa: S101 (looked at above)
        top.imshow(_pixels(picture))
        top.set_title(label)
        bottom.imshow(prediction.mask[0].float().mean(0).cpu().numpy(), vmin=0, vmax=1, cmap="gray")
    _save(figure, path)


def contact_sheet(
    rows: Sequence[tuple[str, Tensor, Tensor, Tensor, Tensor]], path: str | Path, error_range: float = ERROR_RANGE
) -> None:
    """Write a PNG with one row per frame: input, teacher, ours, and maps of the errors of ours and of plain reuse.

    Args:
        rows: (label, input, teacher, ours, reuse); pictures are float (3, H, W) in [0, 1].
        path: of the PNG.
        error_range: the error that is drawn brightest, absolute and averaged over the colours.
    """
    titles = ("input", "teacher", "ours", "error of ours", "error of reuse")
    figure, axes = _axes(len(rows), len(titles), rows[0][2], side=3.2, margins=(1.0, 0.6))
    for line, (label, frame, teacher, ours, reuse) in zip(axes, rows, strict=True):
        for place, picture in zip(line, (frame, teacher, ours), strict=False):
            place.imshow(_pixels(picture), interpolation="nearest")
        for place, picture in zip(line[3:], (ours, reuse), strict=True):
            error = (picture - teacher).abs().mean(0).numpy()
            drawn = place.imshow(error, vmin=0, vmax=error_range, cmap="magma", interpolation="nearest")
        line[0].set_ylabel(label, fontsize="small")
    for place, title in zip(axes[0], titles, strict=True):
        place.set_title(title)
    figure.colorbar(drawn, ax=axes, label="mean absolute error, pictures in [0, 1]", shrink=0.6, pad=0.01)
    _save(figure, path)


error_maps = contact_sheet
"""The paper's figure of errors: frames, and the errors of ours and of reuse."""


def efficiency(
    points: Sequence[tuple[str, str, float, float]], path: str | Path, x: str, y: str, *, lower: bool = False
) -> None:
    """Draw figure 3: performance over efficiency, one point per network.

    Args:
        points: (group, name, efficiency, performance).
        path: an SVG file.
        x: title of the horizontal axis, such as "G multiply-adds".
        y: title of the vertical axis, such as "FVD".
        lower: True if a lower performance value is better.
    """
    from shortcutv2v.show.page import standalone
    from shortcutv2v.show.plots import scatter

    Path(path).write_text(standalone(scatter(points, x, y, f"{y} over {x}", 6.5, lower)), encoding="utf-8")


def coloured(values: Tensor, largest: float) -> Tensor:
    """Return values (H, W) as colours, uint8 (3, H, W): black is 0, bright is `largest` or more (magma)."""
    import matplotlib

    found = matplotlib.colormaps["magma"]((values / largest).clamp(0, 1).cpu().numpy(), bytes=True)
    return torch.from_numpy(found[..., :3].copy()).permute(2, 0, 1)


def _axes(
    rows: int, columns: int, picture: Tensor, side: float = 4.0, margins: tuple[float, float] = (0.0, 0.4)
) -> tuple[Any, Any]:
    """Return a figure and its places for pictures, `side` inches wide, by matplotlib's interface without globals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = picture.shape[-2:]
    size = (columns * side + margins[0], rows * side * height / width + margins[1])
    figure = Figure(figsize=size, layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
    return figure, axes


def _pixels(picture: Tensor) -> Any:
    return picture.permute(1, 2, 0).float().clamp(0, 1).cpu().numpy()


def _save(figure: Any, path: str | Path) -> None:
    figure.savefig(path, dpi=110)
