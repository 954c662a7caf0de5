"""Large tensors on a CPU without a page fault for every page, frame after frame."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of glibc's <malloc.h>
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep memory that is freed instead of handing it back to the system.

    glibc maps every block above 32 MB anew and unmaps it when it is freed; a feature map of 64 channels at 256x512 is
    one. Then each frame pays for zeroed pages: 15 to 30 % of the time of such networks. Afterwards, from the first few
    frames on, the process holds on to the most memory it has ever used. Concerns the whole process, and lasts; the
    command line calls it, a library should leave it to its user. Preloading jemalloc or tcmalloc does as much.

    Returns:
        Whether anything changed: False without glibc.

    Examples:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
