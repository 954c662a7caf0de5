"""A folder of films, worked through by any number of processes on any number of machines that share a disk.

    find_films(sources, folder)   which films there are, and where each goes
    Job                           what is done to them, and the disk state that all processes share
    Worker(job).run(films)        take work items until none is left
    on_ray(job, films, address)   the same items as Ray tasks

A film is planned once: its frames are counted, and divided at scene cuts and refreshes into segments of at most ten
seconds. Segments are the work items. They are encoded apart, verified by decoding, and joined without encoding again.
"""

from shortcutv2v.batch.plan import Film, Plan, find_films
from shortcutv2v.batch.ray import on_ray
from shortcutv2v.batch.work import Job, Worker

__all__ = ["Film", "Job", "Plan", "Worker", "find_films", "on_ray"]
