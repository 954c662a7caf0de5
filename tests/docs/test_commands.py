"""The commands of README and docs: parsed by the real parsers; what they name exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_blocks import COMMANDS, PAGES, ROOT, Block, blocks, make_world

OTHERS = {"tensorboard", "ffmpeg", "ffplay", "cd"}
"""Programs of others, whose arguments are not looked at."""
WITH_COMMANDS = [page for page in PAGES if any(block.language in COMMANDS for block in blocks(page))]


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the words of every command: continued lines joined, comments and prompts dropped, pipes taken apart."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("|", "&&", ";", ">")), len(words))
            yield words[:end]
            words = words[end + 1 :]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_are_understood(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_world(page)
    for block in blocks(page):
        if block.language in COMMANDS:
            found = list(commands(block))
            assert found, f"{page}, line {block.line}: no command in the block; mark output as text"
            for words in found:
                _check(words, page)


def _check(words: list[str], page: str) -> None:
    program = Path(words[0]).name
    if program == "shortcutv2v":
        _parse(words[1:], page)
    elif program in ("python", "python3") and words[1:3] == ["-m", "nox"]:
        _check_sessions(words[3:], page)
    elif program == "nox":
        _check_sessions(words[1:], page)
    elif program == "pip" or words[1:3] == ["-m", "pip"]:
        _check_extras(words, page)
    elif program in ("python", "python3") and words[1:2] != ["-m"]:
        assert (ROOT / words[1]).exists() or Path(words[1]).exists(), f"{page}: no file {words[1]}"
    else:
        assert program in OTHERS or words[1:3] == ["-m", "venv"], f"{page}: what is {words}?"


def _parse(argv: list[str], page: str) -> None:
    main, train = (importlib.import_module(f"shortcutv2v.cli.{name}") for name in ("main", "train"))
    ended = 0
    try:
        if argv[0] == "train":
            train._parser(lambda verb: main._add_adapter(verb, None)).parse_args(argv[1:])
        else:
            main._parser(None).parse_args(argv)
    except SystemExit as stopped:  # also --print_config, with 0
        ended = stopped.code
    assert not ended, f"{page}: shortcutv2v {' '.join(argv)}"


def _check_sessions(words: list[str], page: str) -> None:
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    known = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    asked = words[: words.index("--")] if "--" in words else words
    assert {word for word in asked if not word.startswith("-")} <= known, f"{page}: nox {words}"


def _check_extras(words: list[str], page: str) -> None:
    known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for word in words:
        extras = re.search(r"\[([\w,]+)\]", word)
        assert not extras or set(extras[1].split(",")) <= known, f"{page}: {word}"
