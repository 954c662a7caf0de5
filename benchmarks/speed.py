"""Measure time against multiply-adds, side by side in one run: teachers, blocks and operators.

    python benchmarks/speed.py                       # everything, minutes
    python benchmarks/speed.py --only operators unsup --seconds 20
    python benchmarks/speed.py --compile             # teacher and blocks compiled too
    python benchmarks/speed.py --compile reduce-overhead            # with CUDA graphs
    python benchmarks/speed.py --dtype bfloat16 --channels-last
    python benchmarks/speed.py --render benchmarks/results/*.json   # tables and plots again, nothing measured

Writes `<name>.json`, `<name>.md` and `<name>.png` to benchmarks/results/. All callables of a case run in turn, round
after round, so only ratios within one case mean anything; the tables quote the fastest run of each, which other work
on the machine disturbs least, and the JSON has the medians and the spread. The teacher gets whatever the shortcut frame
gets: compiled lines are compared with the compiled teacher.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks and examples are no installed packages

from benchmarks import speed_cases as cases  # noqa: E402
from benchmarks import speed_operators as operators  # noqa: E402
from benchmarks import speed_report as report  # noqa: E402

from shortcutv2v.measure import cost, latency  # noqa: E402
from shortcutv2v.memory import keep_freed_memory  # noqa: E402

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def measure(case: str, work: dict[str, cases.Work], seconds: float) -> list[report.Line]:
    """Time and count the callables of a case; the first is the baseline, for compiled ones the compiled teacher."""
    print(f"{case}: {len(work)} callables ...", flush=True)
    times = latency(work, warmup=2, runs=30, seconds=seconds)
    first = next(iter(work))
    return [
        report.Line(case, name, cost(work[name]).macs, t.best, t.median, t.spread, times[baseline(name, first)].best)
        for name, t in times.items()
    ]


def baseline(name: str, first: str) -> str:
    """Return the name of the callable that this one is compared with."""
    return f"{first}, compiled" if "compiled" in name else first


def measure_all(wanted: list[str], setting: cases.Setting, seconds: float) -> list[report.Line]:
    """Return all cases that were asked for, in order."""
    found: list[report.Line] = []
    if "operators" in wanted:
        found += measure("AdaBD", operators.operator_work(setting), seconds)
        found += measure("warp, channels_last", operators.warp_work(setting), seconds / 2)
    if "step" in wanted:
        found += measure("distillation step", operators.step_work(setting), seconds)
    for name, make in cases.CASES.items():
        if name in wanted:
            with torch.no_grad():
                found += measure(name, cases.case_work(make(setting), setting), seconds)
    return found


def about_machine(setting: cases.Setting) -> dict[str, str]:
    """Return machine, versions and commit."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dirty = subprocess.run([*git, "status", "--porcelain", "src"], capture_output=True, text=True, check=False)
    model = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    device = f"CPU, {model}, {torch.get_num_threads()} thread(s), {torch.backends.cpu.get_cpu_capability()}"
    if setting.device.type == "cuda":
        device = f"{torch.cuda.get_device_name(setting.device)}, CUDA {torch.version.cuda}"
    return {
        "device": device,
        "precision": str(setting),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "commit": commit.stdout.strip() + (" with local changes" if dirty.stdout.strip() else ""),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["operators", "step", *cases.CASES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=60.0, help="timing per case (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of teacher and blocks")
    parser.add_argument("--channels-last", action="store_true", help="teacher and inputs in that memory format")
    parser.add_argument("--keep-memory", action="store_true", help="see shortcutv2v.memory")
    parser.add_argument("--compile", nargs="?", const="default", metavar="MODE", help="measure torch.compile too")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--name", default="speed", help="of the result files (default: %(default)s)")
    parser.add_argument("--render", nargs="+", type=Path, metavar="JSON", help="only tables and plots of saved results")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = options_of(argv)
    if options.render:
        for path in options.render:
            report.render(path)
            print(f"made the table and the plot of {path} again")
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    kept = options.keep_memory and keep_freed_memory()
    setting = cases.Setting(options.device, DTYPES[options.dtype], options.channels_last, options.compile)
    about = about_machine(setting) | {"freed memory": "kept" if kept else "handed back"}
    found = measure_all(options.only, setting, options.seconds)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.name}.json"
    report.save(path, about, found)
    print(report.render(path))


if __name__ == "__main__":
    main()
