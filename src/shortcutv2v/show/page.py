"""Self-contained pages: one HTML file with its styles and its script inside, which opens without a network."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from shortcutv2v.pair import replace

__all__ = ["data_uri", "markdown", "page", "save", "section", "standalone", "table"]


def page(title: str, parts: Iterable[str], data: Any = None, script: str | None = None) -> str:
    """Return a page.

    Args:
        title: of the page.
        parts: HTML, in order.
        data: plain values for the script, in the element `#data`.
        script: name of a script of this package.
    """
    body = "\n".join(parts)
    if script is not None:
        # `<` is escaped, so that no text in the data can end the element.
        values = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        body += f'\n<script type="application/json" id="data">{values}</script>\n<script>{_asset(script)}</script>'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{_asset("page.css")}</style>\n'
        f"</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """Return a section under a heading."""
    name = re.sub(r"\W+", "-", heading.lower()).strip("-")
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{html.escape(heading)}</h2>{"".join(parts)}</section>'


def table(caption: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table: headings in the first row and the first column; it scrolls sideways where it is too wide."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in rows[1:]
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table>'
        f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def markdown(rows: Iterable[Sequence[str]], names: int = 1) -> Iterator[str]:
    """Markdown lines of a table whose first row is the head; all columns but the first `names` are numbers."""
    for number, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if not number:
            yield f"|{'---|' * names}{'---:|' * (len(row) - names)}"


def save(text: str, path: str | Path) -> None:
    """Write a text whole or not at all: a reader, and a killed process, leave no half of it."""
    replace(Path(path), text.encode())


def _cell(text: str) -> str:
    bar = set(text) == {"\N{FULL BLOCK}"}
    return '<td class="bar" aria-hidden="true">' + text + "</td>" if bar else f"<td>{html.escape(text)}</td>"


def standalone(svg: str) -> str:
    """Return an inline SVG as a file of its own, in the colours of the light page."""
    light = re.search(r":root\s*{([^}]*)}", _asset("page.css"))
    assert light is not None  # noqa: S101 (the file is ours)
    return svg.replace(">", f"><style>svg {{{light[1]} font-family: sans-serif}}</style>", 1)


def data_uri(picture: Tensor, quality: int = 80) -> str:
    """Return a picture, uint8 (3, H, W) or (H, W), as a WebP inside a URI."""
    import numpy as np
    from PIL import Image

    pixels = picture.cpu().numpy()
    image = Image.fromarray(np.moveaxis(pixels, 0, -1).copy() if pixels.ndim == 3 else pixels)
    file = io.BytesIO()
    image.save(file, "webp", quality=quality, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _asset(name: str) -> str:
    return resources.files("shortcutv2v.show").joinpath(name).read_text(encoding="utf-8")
