"""Video in and out: read a clip as a stream, convert it frame by frame, read its frames in any order.

    open(path)                     frames in order, from a video file or a folder of images
    create(path)                   a writer for frames of your own
    convert(source, target, step)  read, call step on every frame, write; sound and time stamps kept
    Frames(path)                   random access, for training
    Cache(bytes)                   shared by many Frames, so that memory has one bound
    StandardInput(), standard_output()    pipes, for open, create and convert
    find_clips(paths)              the clips in any mixture of files and folders, with a warning about bad ones

Frames are uint8 tensors of shape (3, H, W), RGB, everywhere. PyAV is imported when it is first needed; without it every
call raises a `VideoError` that says what to install.
"""

from shortcutv2v.video._pipe import StandardInput, standard_output
from shortcutv2v.video.base import Clip
from shortcutv2v.video.cache import Cache
from shortcutv2v.video.clip import open  # noqa: A004
from shortcutv2v.video.convert import Ahead, convert, not_kept
from shortcutv2v.video.create import create
from shortcutv2v.video.feed import connect, paced
from shortcutv2v.video.find import films_in, find_clips
from shortcutv2v.video.frames import Frames
from shortcutv2v.video.pieces import Pieces, check_piece, join
from shortcutv2v.video.write import Writer

__all__ = [
    "Ahead",
    "Cache",
    "Clip",
    "Frames",
    "Pieces",
    "StandardInput",
    "Writer",
    "check_piece",
    "connect",
    "convert",
    "create",
    "films_in",
    "find_clips",
    "join",
    "not_kept",
    "open",
    "paced",
    "standard_output",
]
