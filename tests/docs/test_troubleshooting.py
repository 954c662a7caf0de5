"""Every message on the page of error messages is one that the package prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from page_blocks import ROOT

MESSAGES = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


def _texts() -> Iterator[str]:
    """Every text in the sources, with a hole for each value that is filled in."""
    for path in (ROOT / "src" / "shortcutv2v").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(_parts(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _parts(node: ast.JoinedStr) -> Iterator[str]:
    for value in node.values:
        yield str(value.value) if isinstance(value, ast.Constant) else "\0"


TEXTS = list(_texts())


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_printed(message: str) -> None:
    pieces = [re.escape(piece.strip()) for piece in message.split("...") if piece.strip()]
    wanted = re.compile(".*".join(pieces), re.DOTALL)
    assert any(wanted.search(text) for text in TEXTS), message


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 40
