"""The work items of a folder of films as Ray tasks: Ray places them on machines and repeats those of lost ones."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from shortcutv2v.batch.plan import Film
from shortcutv2v.batch.work import Item, Job
from shortcutv2v.errors import InputError

__all__ = ["on_ray"]

_RETRIES = 20
_POLL = 0.5


def on_ray(
    job: Callable[[], Job],
    films: Sequence[Film],
    address: str,
    *,
    gpus: float = 0,
    told: Callable[[str], None] = lambda line: None,
) -> dict[Film, str]:
    """Work through films on a Ray cluster; every node must see the same files under the same names.

    Args:
        job: returns the job; called once in every process of the cluster.
        films: what to work on.
        address: "auto" for the cluster that runs here, "local" for one of this machine's own, or HOST:PORT.
        gpus: of a task; 1 lets Ray give every task a GPU of its own.
        told: called with a line when a film is done.

    Returns:
        Films that failed, and why.

    Raises:
        InputError: Ray is not installed, or there is no cluster at this address.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError('--ray needs Ray; type: pip install "shortcutv2v[ray]"') from error
    if not ray.is_initialized():
        try:
            host, _, port = address.rpartition(":")
            if host:  # connect and hang up, because Ray itself would try for a minute
                socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--ray {address}: no cluster there ({error}); start one with `ray start --head`"
            ) from error
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_do)
    running: dict[Any, Film] = {task.remote(job, Item(film, "plan")): film for film in films}
    counts, failed = dict.fromkeys(films, 1), dict[Film, str]()
    while running:
        ready, _ = ray.wait(list(running))
        film = running.pop(ready[0])
        counts[film] -= 1
        try:
            following = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            failed[film] = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            continue
        if counts[film] or film in failed:
            continue
        for item in following:
            running[task.remote(job, item)] = film
            counts[film] += 1
        if not following:
            told(f"{film.target}: done")
    return failed


_jobs: dict[str, Job] = {}


def _do(make: Callable[[], Job], item: Item) -> list[Item]:
    """Do an item, or wait for the process that does; return the items that the film has now."""
    key = repr(make)
    if key not in _jobs:
        _jobs.clear()
        _jobs[key] = make()
    job = _jobs[key]
    while item in (items := list(job.items(item.film))):
        if not job.do(item):
            time.sleep(_POLL)
    return items
