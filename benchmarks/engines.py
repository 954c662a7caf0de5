"""Time a full pass and a shortcut frame in every engine, on Real-ESRGAN; results in `benchmarks/results/`.

    python benchmarks/engines.py [--size 180x320] [--variants flow paper] [--engines eager onnx ...] [--half]

Every round runs every program once, so that a busy machine is busy for all. The least time of all rounds is shown; with
one thread it is the time of the processor, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shortcutv2v
from shortcutv2v.cli.adapters import find_adapter
from shortcutv2v.runtime import Runner

ENGINES = ("eager", "compiled", "aoti", "onnx", "openvino", "openvino_bf16", "onnx_in_openvino")
Passes = tuple[Callable[[], Any], Callable[[], Any]]


def threads(engine: str, count: int) -> dict[str, Any]:
    """Options of the runner's engine for that many threads."""
    if engine == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count
        return {"sess_options": options}
    return {"config": {"INFERENCE_NUM_THREADS": count, "INFERENCE_PRECISION_HINT": "f32"}} if engine != "torch" else {}


def in_torch(model: shortcutv2v.ShortcutV2V, frame: torch.Tensor) -> Passes:
    """Both passes of the model itself."""
    reference = model.reference(frame)[1]
    return lambda: model.reference(frame), lambda: model.shortcut(reference, frame)


def in_engine(folder: Path, engine: str, options: dict[str, Any], frame: torch.Tensor) -> Passes:
    """Both programs of a folder, as a runner calls them."""
    runner = Runner(folder, engine=engine, refresh=10**9, **options)
    first = runner._next
    runner(frame.numpy())
    given = {spec["name"]: frame.numpy() for spec in runner.manifest["inputs"]}

    def full() -> Any:
        runner.reset()
        return first(given)

    return full, lambda: first(given)


def prepare(name: str, model: shortcutv2v.ShortcutV2V, frame: torch.Tensor, root: Path, count: int) -> Passes:
    """The passes that an engine runs; exports what it needs."""
    if name == "eager":
        return in_torch(model, frame)
    if name == "compiled":
        model.compile()
        return in_torch(model, frame)
    form = {"onnx_in_openvino": "onnx", "openvino_bf16": "openvino"}.get(name, name)
    folder = root / form
    if not folder.exists():
        shortcutv2v.export(model, frame, folder, format=form)
    engine = {"onnx": "onnxruntime", "aoti": "torch"}.get(name, "openvino")
    options = threads(engine, count)
    if name == "openvino_bf16":
        options["config"]["INFERENCE_PRECISION_HINT"] = "bf16"
    return in_engine(folder, engine, options, frame)


def least(passes: dict[str, Passes], rounds: int, clock: Callable[[], float]) -> dict[str, tuple[float, float]]:
    """Least seconds of both passes, over rounds in which every pass runs once."""
    times: dict[str, list[list[float]]] = {name: [[], []] for name in passes}
    for number in range(rounds + 1):
        for name, both in passes.items():
            both[0]()  # leaves the reference that the shortcut pass reads
            for kind in (0, 1):
                started = clock()
                both[kind]()
                if number:
                    times[name][kind].append(clock() - started)
    return {name: (min(full), min(shortcut)) for name, (full, shortcut) in times.items()}


def main() -> None:
    """Print one table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="180x320", help="HEIGHTxWIDTH (default: %(default)s)")
    parser.add_argument("--cut", default="low")
    parser.add_argument("--variants", nargs="+", default=["paper", "flow"])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES[:5]), choices=ENGINES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--interval", type=int, default=3, help="of the video (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    height, width = map(int, options.size.split("x"))
    frame, rows = torch.rand(1, 3, height, width), []
    titles = ("block", "engine", "full pass, ms", "shortcut, ms", "ratio", "video, fps", "on disk, MB")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for variant in options.variants:
        with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
            adapter = find_adapter("real_esrgan", [f"cut={options.cut}"])
            model = adapter.wrap(frame, variant=variant).eval()
            root = Path(temporary)
            passes = {name: prepare(name, model, frame, root, options.threads) for name in options.engines}
            for name, (full, shortcut) in least(passes, options.rounds, clock).items():
                fps = options.interval / (full + (options.interval - 1) * shortcut)
                size = sum(path.stat().st_size for path in (root / name).glob("*")) / 1e6
                row = [variant, name, full * 1e3, shortcut * 1e3, full / shortcut, fps, size]
                rows.append(row)
                print("| " + " | ".join(x if isinstance(x, str) else f"{x:.3g}" for x in row) + " |", flush=True)
    target = Path(__file__).parent / "results" / "engines.json"
    said = {**vars(options), "numpy": np.__version__, "torch": torch.__version__, "titles": titles, "rows": rows}
    target.write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
