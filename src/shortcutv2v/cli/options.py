"""Command line options made from dataclasses: names, types, defaults and help are those of the fields."""

from __future__ import annotations

import argparse
import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse import ArgumentParser

from shortcutv2v.errors import InputError, ShortcutError, near_matches

__all__ = ["Reader", "add_fields", "check_config", "parse"]


class Reader:
    """Reads the value of one option, as typed on the command line or written in a YAML file.

    Args:
        name: the option's name.
        hint: its type: any union of int, float, str, bool, None, `Literal`, list and tuple.

    Raises:
        InputError: from a call, the value is of another type.

    Examples:
        >>> Reader("lr", float | None)("1e-3"), Reader("betas", tuple[float, float] | None)("[0.9, 0.99]")
        (0.001, (0.9, 0.99))
        >>> Reader("crop", int | None)("big")
        Traceback (most recent call last):
        shortcutv2v.errors.InputError: --crop big: expected a whole number or null
    """

    def __init__(self, name: str, hint: Any) -> None:
        self.name = name
        union = get_origin(hint) in (Union, types.UnionType)
        self.hints = list(get_args(hint)) if union else [hint]
        # A text can be anything, so it comes last.
        self.hints.sort(key=lambda each: (each is not type(None), each in (str, Path)))
        self.__name__ = name  # argparse asks for it

    def __call__(self, value: Any) -> Any:
        """The value."""
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        for hint in self.hints:
            for read in _plain(text), text:
                found = _as(hint, read)
                if found is not _NOTHING:
                    return found
        raise InputError(f"--{self.name.replace('_', '-')} {value}: expected {self!r}")

    def __repr__(self) -> str:
        words = [_described(hint) for hint in self.hints]
        return " or ".join(dict.fromkeys(sorted(words, key=lambda word: word == "null")))


_NOTHING = object()
_TRUSTED = ("shortcutv2v", "torch", "torchvision")
_TAKE_MODULES = ("module", "spatial", "temporal")
"""Arguments of `FeaturePerceptual` and `Adversary` that are networks."""


def _plain(text: str) -> Any:
    """A number, true, false, null or a list; else the text itself."""
    for read in (int, float, json.loads):
        try:
            return read(text)
        except ValueError:
            pass
    return text


def _as(hint: Any, value: Any) -> Any:
    """`value` as a `hint`, or `_NOTHING`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is type(None):
        return None if value is None else _NOTHING
    if get_origin(hint) is Literal:
        return value if value in get_args(hint) else _NOTHING
    if get_origin(hint) in (tuple, list):
        kinds = get_args(hint)
        if not isinstance(value, list) or (get_origin(hint) is tuple and len(value) != len(kinds)):
            return _NOTHING
        entries = [_as(kinds[min(i, len(kinds) - 1)], entry) for i, entry in enumerate(value)]
        return _NOTHING if _NOTHING in entries else get_origin(hint)(entries)
    if hint is float:
        return float(value) if number else _NOTHING
    if hint is int:
        return value if number and isinstance(value, int) else _NOTHING
    kind = str if hint is Path else hint
    return value if isinstance(value, kind) else _NOTHING


def _described(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if get_origin(hint) in (tuple, list):
        return "a list such as [0.9, 0.99]" if float in get_args(hint) else "a list"
    words = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    return words.get(hint, "a text")


def add_fields(parser: ArgumentParser, kind: Any, special: Mapping[str, Any], prefix: str = "") -> None:
    """Add an option for every field of a dataclass; fields that are dataclasses themselves become a group.

    Args:
        parser: gets the options.
        kind: the dataclass; the section `Attributes:` of its docstring is the help.
        special: types of fields that jsonargparse is to read, such as classes; None leaves a field out.
        prefix: in front of the options' names.
    """
    hints, about = get_type_hints(kind), docstring_parser.parse(kind.__doc__ or "")
    texts = {each.arg_name: each.description for each in about.params}
    for each in dataclasses.fields(kind):
        hint, name = special.get(each.name, hints[each.name]), f"{prefix}{each.name}"
        if hint is None:
            continue
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            add_fields(parser, hint, special, f"{name}.")
            continue
        read = hint if each.name in special else Reader(name, hint)
        flag = f"--{name}" if prefix else f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=read, default=each.default, help=" ".join((texts[each.name] or "").split()))


def parse(parser: ArgumentParser, argv: Sequence[str]) -> Any:
    """The options, with their classes made.

    Returns:
        The options as given, for `save`, and with instances instead of class paths.

    Raises:
        InputError: an unknown option or a bad value.
    """
    known = [name for action in parser._actions for name in action.option_strings]
    for word in argv:
        name = word.partition("=")[0]
        if name.startswith("--") and name != "--" and not {name, name.split(".")[0]} & {*known}:
            near = near_matches(name, known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise InputError(f"unknown option {name}{hint}; see {parser.prog} --help")
    try:
        options = parser.parse_args(list(argv))
        return options, parser.instantiate(options)
    except (argparse.ArgumentError, ValueError) as error:
        said = _innermost(error) or f"{' '.join(str(error).split())}; see {parser.prog} --help"
        raise InputError(said) from error


def _innermost(error: BaseException | None) -> str:
    """The message of the last error of this package in a chain; empty if there is none."""
    said = ""
    while error is not None:
        said = str(error) if isinstance(error, ShortcutError) else said
        error = error.__cause__ or error.__context__
    return said


def check_config(argv: Sequence[str], lists: Sequence[str]) -> None:
    """Read the YAML files of `--config` before anything in them is acted on.

    A class path makes Python import a module. Only those of this package, torch and torchvision are taken from a file.

    Args:
        argv: the arguments.
        lists: options that must be lists.

    Raises:
        InputError: a file cannot be read, holds no options, or names a class of another package.
    """
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        path = Path(word.partition("=")[2] if word.startswith("--config=") else following)
        if not word.startswith("--config"):
            continue
        try:
            found = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise InputError(f"--config {path}: {why}: expected a YAML file, as --print_config writes it") from None
        if not isinstance(found, dict):
            raise InputError(f"--config {path}: expected a YAML file with options, as --print_config writes it")
        for name in lists:
            if isinstance(found.get(name), str):
                raise InputError(f"--config {path}: {name} must be a list: write `{name}: [clip.mp4]`")
        _check_classes(found, path)


def _check_classes(value: Any, path: Path) -> None:
    """Look at every place where a class can stand: a class path, or the plain value of an option that takes a class."""
    for key, entry in value.items() if isinstance(value, dict) else ():
        named = isinstance(entry, str) and key in ("class_path", "perceptual", "adversary", *_TAKE_MODULES)
        if named and "." in entry and entry.split(".")[0] not in _TRUSTED:
            raise InputError(
                f"--config {path}: {key}: {entry} is a class of another package, which would be imported: if you mean "
                "it, give it on the command line"
            )
        _check_classes(entry, path)
