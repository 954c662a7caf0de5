"""Checks that a file ends where its own format says that it does.

FFmpeg reads a file that was cut short to its last byte and stops without an error in many formats. A duration in the
header is no proof either: it counts the sound, the time that a last picture stands, or pictures that were dropped. The
structure of the file is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["CUT", "UNKNOWN", "WHOLE", "ending"]

CUT, UNKNOWN, WHOLE = "cut", "unknown", "whole"


def ending(file: Path, kind: str, frame_bytes: int = 0) -> str:
    """Return CUT if the file breaks off, WHOLE if it has its stated end, UNKNOWN if its format states none.

    Args:
        file: the file.
        kind: its format as FFmpeg names it.
        frame_bytes: size of a frame, for formats whose frames are all of one size.
    """
    check = next((check for name, check in _CHECKS.items() if name in kind.split(",")), None)
    if check is None:
        return UNKNOWN
    size = file.stat().st_size
    with file.open("rb") as opened:
        try:
            return check(opened, size, frame_bytes)
        except (_TooShort, IndexError):
            return CUT


class _TooShort(Exception):  # noqa: N818 - never leaves this file
    """The file ends within something that its format states the size of."""


def _take(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _TooShort
    return data


def _skip(file: BinaryIO, size: int, count: int) -> None:
    if file.tell() + count > size:
        raise _TooShort
    file.seek(count, os.SEEK_CUR)


def _gif(file: BinaryIO, size: int, _: int) -> str:
    """Walk over the blocks up to the trailer."""
    header = _take(file, 13)
    _skip(file, size, _colours(header[10]))
    while mark := file.read(1):
        if mark == b"\x3b":
            return WHOLE
        if mark == b"\x21":
            _skip(file, size, 1)
        elif mark == b"\x2c":
            _skip(file, size, _colours(_take(file, 9)[8]) + 1)
        else:
            return UNKNOWN
        while length := _take(file, 1)[0]:
            _skip(file, size, length)
    return UNKNOWN


def _colours(flags: int) -> int:
    """Return the bytes of a GIF's colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _y4m(file: BinaryIO, size: int, frame_bytes: int) -> str:
    file.readline(256)
    while frame_bytes and (mark := file.readline(256)):
        if not mark.startswith(b"FRAME") or not mark.endswith(b"\n"):
            return CUT
        _skip(file, size, frame_bytes)
    return UNKNOWN


_SEGMENT, _CLUSTER, _ANY_SIZE = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", -1


def _matroska(file: BinaryIO, size: int, _: int) -> str:
    """Walk over the elements; segments and clusters written live state no size and are entered."""
    for name, count in _elements(file):
        if name == _SEGMENT and count != _ANY_SIZE:
            return CUT if file.tell() + count > size else WHOLE
        if count == _ANY_SIZE:
            if name not in {_SEGMENT, _CLUSTER}:
                return UNKNOWN
        else:
            _skip(file, size, count)
    return UNKNOWN


def _elements(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the name and size of one EBML element after the other."""
    while first := file.read(1):
        extra = 8 - first[0].bit_length()
        if extra > 3:
            return
        name = first + _take(file, extra)
        length = _take(file, 1)[0]
        more = 8 - length.bit_length()
        if more > 7:
            return
        bits = 7 * (more + 1)
        count = int.from_bytes(bytes([length]) + _take(file, more), "big") & ((1 << bits) - 1)
        yield name, (_ANY_SIZE if count == (1 << bits) - 1 else count)


def _avi(file: BinaryIO, size: int, _: int) -> str:
    found = UNKNOWN
    while (head := file.read(8))[:4] == b"RIFF":
        count = int.from_bytes(head[4:], "little")
        if count in {0, 0xFFFFFFFF}:
            return UNKNOWN
        if file.tell() + count > size + 16:  # some writers round
            return CUT
        file.seek(count + count % 2, os.SEEK_CUR)
        found = WHOLE
    return found


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _asf(file: BinaryIO, size: int, _: int) -> str:
    head = file.read(1 << 16)
    at = head.find(_ASF_PROPERTIES)
    if at < 0:
        return UNKNOWN
    stated, live = int.from_bytes(head[at + 40 : at + 48], "little"), head[at + 88] & 1
    if live or not stated:
        return UNKNOWN
    return CUT if size < stated else WHOLE


def _mp4(file: BinaryIO, size: int, _: int) -> str:
    """Walk over the boxes; only a file in pieces that ends with their index is known to be whole."""
    last, pieces = b"", False
    while len(head := file.read(8)) == 8:
        count, last = int.from_bytes(head[:4], "big"), head[4:]
        if not last.isalnum():
            break  # padding
        pieces = pieces or last == b"moof"
        if count == 0:
            return UNKNOWN
        _skip(file, size, int.from_bytes(_take(file, 8), "big") - 16 if count == 1 else max(0, count - 8))
    return UNKNOWN if pieces and last != b"mfra" else WHOLE


def _ogg(file: BinaryIO, size: int, _: int) -> str:
    """Look at the last page: it must be complete and be marked as the last one."""
    file.seek(max(0, size - (1 << 17)))
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return UNKNOWN
    pieces = tail[at + 27 : at + 27 + tail[at + 26]]
    if at + 27 + tail[at + 26] + sum(pieces) > len(tail):
        return CUT
    return WHOLE if tail[at + 5] & 4 else UNKNOWN


def _flv(file: BinaryIO, size: int, _: int) -> str:
    """Look at the last tag: its size must stand after it."""
    file.seek(max(0, size - 4))
    count = int.from_bytes(file.read(4), "big")
    if count < 11 or count + 4 > size:
        return CUT
    file.seek(size - 4 - count)
    return UNKNOWN if int.from_bytes(file.read(4)[1:], "big") + 11 == count else CUT


_CHECKS: dict[str, Callable[[BinaryIO, int, int], str]] = {
    "gif": _gif,
    "yuv4mpegpipe": _y4m,
    "matroska": _matroska,
    "avi": _avi,
    "asf": _asf,
    "mp4": _mp4,
    "ogg": _ogg,
    "flv": _flv,
}
