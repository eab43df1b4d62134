"""Settings of the whole process that make searches on CPU faster, made when edgewise is imported."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

OPT_OUT = "EDGEWISE_TUNE"
"""Environment variable: 0 leaves the process as it is."""


def tune_process() -> None:
    """Spin less where threads wait for each other, and keep freed memory for the next tensor.

    Small models spend much of their time where threads wait for each other; on a machine busy with other work a long
    spin there makes them several times slower, and a short one costs nothing on an idle machine. The number of spins is
    read once, when torch is imported, so where torch came first that part is left out. glibc gives large tensors back
    to the system as soon as they are freed, and taking them anew, page by page, costs time too.

    `import edgewise` calls this. What the user has set in the environment stays, and EDGEWISE_TUNE=0 leaves all as it
    is.
    """
    if os.environ.get(OPT_OUT) == "0":
        return
    if "OMP_WAIT_POLICY" not in os.environ and "torch" not in sys.modules:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    chosen = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform == "linux" and not chosen and "LD_PRELOAD" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):  # not every Linux has glibc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
