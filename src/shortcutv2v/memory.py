"""Avoid page faults of large tensors on a CPU, frame after frame."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of glibc's <malloc.h>
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory instead of returning it to the system.

    glibc maps every block above 32 MB anew and unmaps it when it is freed. A feature map of 64 channels at 256x512 is
    that large. So each frame pays for zeroed pages: 15 to 30 % of the time of such networks. With this setting, the
    process keeps as much memory as it has ever used. The setting concerns the whole process and cannot be undone. The
    command line calls this function; a library should leave the call to its user. Preloading jemalloc or tcmalloc has
    the same effect.

    Returns:
        Whether anything changed; False without glibc.

    Examples:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))
