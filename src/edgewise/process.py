"""Settings of the whole process that make searches on CPU faster: for programs, such as the command line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys


def tune_process() -> None:
    """Spin less where threads wait for each other, and keep freed memory for the next tensor.

    Call it before torch is imported. Small models spend much of their time where threads wait for each other; on a
    machine busy with other work a long spin there makes them some ten times slower, and a short one costs nothing on an
    idle machine. glibc gives large tensors back to the system as soon as they are freed, and taking them anew, page by
    page, costs a fifth of the time. What the user has set in the environment stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform == "linux" and not chosen and "LD_PRELOAD" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # not every Linux has glibc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
