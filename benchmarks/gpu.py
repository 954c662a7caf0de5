"""Check every path that a GPU takes against the CPU, then time teacher and model treated alike. Under 8 minutes.

    python benchmarks/gpu.py                        # on the first GPU
    python benchmarks/gpu.py --only blocks streams  # some checks, nothing timed
    python benchmarks/gpu.py --device cpu --small   # all of it at tiny sizes, to see that it runs

Writes `gpu.json`, `gpu.md` (tables) and `notes.md` (for docs/speed.md) to benchmarks/results/gpu/. A check that fails
is reported and the others go on. Exit status: 0 if all checks passed, 1 if one failed, 2 without such a device.

Checks run without TF32, timings as torch does by default. The timed treatments are eager, CUDA graphs
(`mode="reduce-overhead"`), compiled, and bfloat16 in channels_last; each treats teacher and model alike. A treatment
begins only while there is time for it; those that were left out are named.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks and examples are no installed packages

from benchmarks import gpu_models, gpu_report, speed, speed_report  # noqa: E402
from benchmarks import speed_cases as cases  # noqa: E402
from benchmarks.gpu_bench import CHECKS, Bench, Outcome, outcome  # noqa: E402

__all__ = ["LEVELS", "main", "timings"]

LEVELS = {"unsup": "last", "vid2vid": "medium", "real_esrgan": "last", "x4plus": "low"}
"""The cut of each network that gains most; for vid2vid the paper's."""

_TREATMENTS: dict[str, dict[str, Any]] = {
    "eager": {},
    "CUDA graphs": {"compiled": "reduce-overhead"},
    "bfloat16, channels_last": {"dtype": torch.bfloat16, "channels_last": True},
    "compiled": {"compiled": "default"},
}
_NEEDED = {"eager": 15.0, "CUDA graphs": 65.0, "bfloat16, channels_last": 15.0, "compiled": 65.0}
"""Seconds that must be left when a treatment of one network begins."""


def checks(bench: Bench, names: Sequence[str]) -> Iterator[Outcome]:
    """Run the checks of these names, and print each."""
    for each in CHECKS:
        if each.name in names:
            found = outcome(each, bench)
            print(gpu_report.line(found), flush=True)
            yield found


def timings(setting: cases.Setting, seconds: float, end: float) -> tuple[list[speed_report.Line], list[str]]:
    """Time all networks in all treatments.

    Args:
        setting: device and size.
        seconds: timing per network and treatment.
        end: `time.monotonic()` at which all should be over.

    Returns:
        The lines, and the cases that were left out, with the reason.
    """
    found: list[speed_report.Line] = []
    left_out: list[str] = []
    for treatment, changes in _TREATMENTS.items():
        for name, level in LEVELS.items():
            case = f"{name}, {treatment}"
            if end - time.monotonic() < (0 if setting.small else _NEEDED[treatment]):
                left_out.append(f"{case}: no time left")
                continue
            try:
                found += _timed(case, setting, changes, level, seconds)
            except Exception as error:  # the others go on
                left_out.append(f"{case}: {type(error).__name__}: {(str(error) or '-').splitlines()[0]}")
            print(f"  {left_out[-1]}" if left_out and left_out[-1].startswith(case) else f"  {case}: done", flush=True)
            torch.compiler.reset()
    return found, left_out


def _timed(
    case: str, setting: cases.Setting, changes: dict[str, Any], level: str, seconds: float
) -> list[speed_report.Line]:
    changed = replace(setting, **changes)
    torch.manual_seed(0)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = cases.CASES[case.partition(",")[0]](changed)
        return speed.measure(case, cases.alike_work(made, changed, level), seconds)


@contextmanager
def _exact() -> Iterator[None]:
    """Compute float32 in float32: no TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def options_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [each.name for each in CHECKS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="CHECK", help=f"of: {', '.join(names)}")
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, and a compiler that compiles nothing")
    parser.add_argument("--seconds", type=float, default=6.0, help="timing per network and treatment")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    end = time.monotonic()
    options = options_of(argv)
    end += 60 * options.minutes
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU that torch can use: --device cpu --small runs all of it at tiny sizes", file=sys.stderr)
        return 2
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by deterministic algorithms
    setting = cases.Setting(options.device, small=options.small)
    with _exact():
        found = list(checks(Bench(options.device, options.small), options.only or [each.name for each in CHECKS]))
    lines, left_out = ([], []) if options.only else timings(setting, 0.0 if options.small else options.seconds, end)
    about = speed.about_machine(setting) | {"network of the checks": gpu_models.CHECKED}
    options.out.mkdir(parents=True, exist_ok=True)
    saved = {"about": about, "checks": [asdict(each) for each in found], "left_out": left_out}
    saved["lines"] = [asdict(line) for line in lines]
    (options.out / "gpu.json").write_text(json.dumps(saved, indent=1) + "\n")
    print(gpu_report.render(options.out / "gpu.json"))
    return 0 if all(each.passed for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
