"""Keep the memory of big buffers: maps of features on a CPU, images and their messages."""

import ctypes


def keep_big_buffers() -> None:
    """Make glibc keep the memory of big buffers, up to 1 GiB, instead of returning it after each use.

    Otherwise the system clears all pages of a buffer whenever it is asked for again. Programs call it once at their
    start; docs/benchmarks.md says what it is worth.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 32 << 20)
    mallopt(m_trim_threshold, 1 << 30)
