"""Arguments and errors of the command line; the work is done in one module per command."""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.metadata
import itertools
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shortcutv2v.cli.arguments import add_auto, add_many, add_tune
from shortcutv2v.errors import InputError, ShortcutError, VideoError
from shortcutv2v.memory import keep_freed_memory

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, *, adapter: str | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments, without the program's name; default: those of the process.
        adapter: preset `--adapter`, for the scripts of the examples.

    Returns:
        The exit code: 0 done, 2 refused with one line on standard error, 130 interrupted.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # the process is ours
        keep_freed_memory()
    formatted, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        for argument in given:
            if "\0" in argument:
                raise InputError(f"{argument!r} holds a NUL character, which no name of a file may")
        if given[:1] == ["train"]:
            return _train(given[1:], adapter)
        options = _parser(adapter).parse_args(given)
        result: int = options.run(options)
        return result
    except (ShortcutError, ImportError, OSError) as error:
        return _refuse(str(error))
    except (MemoryError, RuntimeError) as error:
        text = str(error) or type(error).__name__
        if isinstance(error, MemoryError) or re.search("out of memory|allocate memory", text, re.IGNORECASE):
            return _refuse(f"not enough memory: take a smaller --size or shorter clips ({text.splitlines()[0]})")
        raise
    except KeyboardInterrupt as stopped:
        if str(stopped):
            print(f"shortcutv2v: {stopped}", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = formatted


def _refuse(message: str) -> int:
    line = " ".join(part.strip() for part in message.splitlines())
    print(f"shortcutv2v: error: {line}", file=sys.stderr)
    return 2


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning without the line of code that it came from."""
    return f"shortcutv2v: warning: {message}\n"


def _parser(adapter: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shortcutv2v", description="Make a pretrained video generator fast.")
    version = importlib.metadata.version("shortcutv2v")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version}")
    verbs = parser.add_subparsers(required=True, metavar="command")
    verbs.add_parser("train", help="train a block on some clips")  # has a parser of its own, see `_train`
    for name, add, about in (
        ("auto", add_auto, "from a network and a film to a faster film: cut, block and width are searched"),
        ("tune", add_tune, "the same search over several clips, and what every choice is worth"),
        ("translate", _add_translate, "run a video through the teacher, with a block or without"),
        ("measure", _add_measure, "quality and speed of a block on a clip, compared with the teacher"),
        ("report", _add_report, "one self-contained page about a block on a clip, to look at in a browser"),
        ("inspect", _add_inspect, "the teacher stage by stage, where it can be cut, and the cut to begin with"),
        ("profile", _add_profile, "multiply-adds and time of each part, and whether skipping pays here"),
        ("figures", _add_figures, "the paper's figures for a block on a clip"),
        ("export", _add_export, "programs for ONNX Runtime, OpenVINO or C++"),
        ("demo", _add_demo, "train and measure a block for a real network on a real clip"),
    ):
        verb = verbs.add_parser(name, help=about)
        if name != "demo":
            _add_adapter(verb, adapter, "256x512" if name in ("profile", "export") else None)
        add(verb)
        verb.set_defaults(run=_lazily(name))
    return parser


def _add_adapter(verb: Any, preset: str | None, size: str | None = None) -> None:
    verb.add_argument(
        "--adapter",
        default=preset,
        required=preset is None,
        metavar="NAME",
        help="a bundled example (real_esrgan, unsup, ...), a file.py or a module with build_adapter()",
    )
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an argument of build_adapter(); repeatable"
    )
    verb.add_argument("--cut", metavar="NAME", help="a named cut of the adapter; a saved block has its own")
    verb.add_argument(
        "--size",
        default=size,
        metavar="HxW",
        help="read clips at this size: HEIGHTxWIDTH, or a height alone to keep their ratio"
        if size is None
        else "HEIGHTxWIDTH of a frame (default: %(default)s)",
    )
    verb.add_argument("--device", default="auto", help="cpu, cuda, ... (default: cuda if available)")


def _add_dtype(verb: argparse.ArgumentParser, about: str) -> None:
    names = ("auto", "float32", "bfloat16", "float16")
    verb.add_argument("--dtype", choices=names, help=f"precision of teacher and block; {about}")


def _train(argv: Sequence[str], adapter: str | None) -> int:
    """Run the command line of training, whose imports take longer than those of the others."""
    for clip in itertools.takewhile(lambda argument: not argument.startswith("-"), argv):
        if not Path(clip).exists():  # the usual mistake is refused at once
            raise VideoError(f"{clip}: no such file or folder; check the spelling")
    from shortcutv2v.cli.train import run

    run(argv, functools.partial(_add_adapter, preset=adapter))
    return 0


def _add_translate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "source",
        nargs="+",
        help="video, folder of frames, or - for standard input; or several films, or folders of them",
    )
    verb.add_argument(
        "target",
        type=Path,
        help=".mp4, .mov, .mkv, .y4m, a folder of frames, or - for yuv4mpeg; of several films, their folder",
    )
    verb.add_argument("--raw", metavar="WxH@RATE", help="- is RGB without a header, such as 640x360@25 (WIDTHxHEIGHT)")
    verb.add_argument("--block", type=Path, help="folder of a trained block; without it the teacher does every frame")
    verb.add_argument("--interval", type=int, help="frames from one refresh to the next, instead of the saved value")
    verb.add_argument(
        "--quality",
        metavar="DB",
        help="refresh when it must: PSNR to the teacher that 95 %% of the shortcut frames shall hold, such as 40, "
        "40dB@99%%, or lossless",
    )
    verb.add_argument("--speed", type=float, help="times as fast as the teacher, at the best quality that allows")
    verb.add_argument(
        "--both",
        action="store_true",
        help="with --interval: predict every frame from the references before and after it; dearer and better",
    )
    verb.add_argument(
        "--no-lookahead",
        dest="lookahead",
        action="store_false",
        help="predict every frame from the reference before it, as a live stream has to",
    )
    verb.add_argument(
        "--windows",
        action="store_true",
        help="compute only the parts of a frame that change, for local teachers; works without --block, too",
    )
    verb.add_argument("--crf", type=float, default=16, help="H.264 quality, 0 is lossless (default: %(default)s)")
    verb.add_argument("--tone-map", action="store_true", help="map HDR to the colours of ordinary screens")
    verb.add_argument("--no-audio", action="store_true", help="leave the sound out")
    verb.add_argument("--frames", metavar="START:STOP", help="translate this part of the clip")
    verb.add_argument("--report", type=Path, metavar="FILE", help="write a page about the run, see `report`")
    _add_dtype(
        verb,
        "auto takes bfloat16 if it is faster on the first frames and within 45 dB of float32 (default: the teacher's)",
    )
    add_many(verb)


def _add_measure(verb: argparse.ArgumentParser) -> None:
    _add_measured(verb)
    verb.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, per frame and in summary")
    verb.add_argument("--csv", type=Path, metavar="FILE", help="write one row per frame")
    about = "one more baseline: a TorchScript network(before, after, share), such as RIFE, between the refreshes"
    verb.add_argument("--interpolate", type=Path, metavar="FILE", help=about)
    _add_dtype(verb, "what is measured is the distance to the teacher in its own precision (default: the teacher's)")


def _add_report(verb: argparse.ArgumentParser) -> None:
    _add_measured(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file")
    about = "a file of measure --json: its runs are points of the quality-speed plot; repeatable"
    verb.add_argument("--compare", type=Path, action="append", default=[], metavar="FILE", help=about)
    about = "kB of its pictures (default: %(default)s)"
    verb.add_argument("--largest", type=int, default=7500, metavar="KB", help=about)
    verb.add_argument("--inspect", action="store_true", help="try other cuts on the clip, as `inspect` does")


def _add_clip(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", type=Path, help="video or folder of frames")
    verb.add_argument("--block", type=Path, required=True, help="folder of a trained block")
    verb.add_argument("--frames", metavar="START:STOP", help="the part of the clip to use")


def _add_measured(verb: argparse.ArgumentParser) -> None:
    _add_clip(verb)
    verb.add_argument("--quality", metavar="DB", help="refresh when it must, see translate")
    verb.add_argument("--intervals", metavar="N,N,...", help="measure each of these intervals, such as 2,3,4,6")
    about = "predict from references on both sides, as translate does"
    verb.add_argument("--lookahead", action="store_true", help=about)
    about = "names between commas, beside psnr and ssim: ms_ssim, lpips, flip, cvvdp, vmaf, flicker, warping, miou, "
    verb.add_argument("--metrics", metavar="NAME,...", help=about + "class_accuracy, pixel_accuracy, fid, fvd, or all")
    about = "a file that a metric needs, such as fvd=i3d_torchscript.pt; repeatable"
    verb.add_argument("--use", action="append", default=[], metavar="METRIC=FILE", help=about)


def _add_inspect(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("source", type=Path, nargs="?", help="a clip, on which the cuts are tried; default: none")
    verb.add_argument("--frames", metavar="START:STOP", help="the part of the clip to use")
    verb.add_argument("--count", type=int, default=12, help="cuts to list, the best first (default: %(default)s)")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")


def _add_figures(verb: argparse.ArgumentParser) -> None:
    _add_clip(verb)
    verb.add_argument("--out", type=Path, required=True, help="folder for the figures")


def _add_profile(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--block", type=Path, help="folder of a trained block; default: an untrained one")
    about = "number of other cuts to wrap and time (default: 3 if skipping does not pay)"
    verb.add_argument("--cuts", type=int, help=about)


def _add_export(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--block", type=Path, required=True, help="folder of a trained block")
    verb.add_argument("--out", type=Path, required=True, help="folder for the programs")
    verb.add_argument(
        "--format",
        default="onnx",
        choices=("onnx", "openvino", "torch", "aoti"),
        help="what the programs are for: ONNX Runtime, OpenVINO, torch.export, AOTInductor (default: %(default)s)",
    )
    verb.add_argument("--interval", type=int, help="frames from one refresh to the next, instead of the saved value")
    verb.add_argument("--pixels", action="store_true", help="uint8 pictures in and out, converted by the programs")
    verb.add_argument("--dynamic", action="store_true", help="leave height and width open, where the teacher allows")


def _add_demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", type=Path, default=Path("demo_output"), help="folder (default: %(default)s)")
    verb.add_argument("--minutes", type=float, default=4.0, help="training time (default: %(default)s)")
    verb.add_argument("--variant", help="the block (default: flow)")
    verb.add_argument("--cut", default="low", help="last, low, medium or high: how late the cut ends (default: low)")


def _lazily(command: str) -> Callable[[argparse.Namespace], int]:
    """Import the command's module only when it runs: `--help` needs neither Lightning nor PyAV."""
    place, function = ("auto", "tune") if command == "tune" else (command, "run")

    def run(options: argparse.Namespace) -> int:
        module = importlib.import_module(f"shortcutv2v.cli.{place}")
        getattr(module, function)(options)
        return 0

    return run
