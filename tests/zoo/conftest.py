"""The zoo runs only when it is asked for (`-m slow`), and then writes its score where it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--zoo-table", default=None, help="write the zoo's score as markdown to this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="the zoo takes minutes; its own nox session runs it with -m slow")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def score(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    """Rows of the score table; written out when the session ends."""
    rows: list[dict[str, Any]] = []
    yield rows
    path = request.config.getoption("--zoo-table")
    if path:
        Path(path).write_text(table(rows), encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """The score as markdown: one line per package, then one per network."""
    lines = ["| package | networks | exact | by fx | by export | by hooks |", "|---|---|---|---|---|---|"]
    packages = sorted({r["package"] for r in rows})
    for name in [*packages, "all"]:
        own = [r for r in rows if name in (r["package"], "all")]
        good = [r for r in own if r["result"] == "exact"]
        count = [sum(r["strategy"] == s for r in good) for s in ("fx", "export", "hooks")]
        lines.append(f"| {name} | {len(own)} | {len(good)} | {' | '.join(map(str, count))} |")
    lines += [
        "",
        "| network | cut | strategy | middle's share of multiply-adds | capture | result |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        seconds = f"{r['seconds']:.1f} s ({r['passes']:.0f} teacher passes)" if r["seconds"] else ""
        cells = [f"{r['package']}: {r['name']}", r["cut"], r["strategy"], f"{r['share']:.0%}", seconds, r["result"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
