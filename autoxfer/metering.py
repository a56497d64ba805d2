"""What the process has taken of the machine since a moment: seconds, memory, the accelerator's memory."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import final

from autoxfer.report import Usage

_PEAK = "VmHWM:"  # in kilobytes; unlike ru_maxrss it forgets the process that started this one


@final
class Meter:
    """Counts seconds from its making on. Memory is the process's at its peak, whatever it did before."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        for device in _devices():
            sys.modules["torch"].cuda.reset_peak_memory_stats(device)

    def read(self) -> Usage:
        """Say what has been taken so far."""
        peaks = [int(sys.modules["torch"].cuda.max_memory_allocated(device)) for device in _devices()]
        return Usage(time.monotonic() - self._started, peak_memory(), max(peaks, default=None))


def peak_memory() -> int:
    """Bytes that the process held in memory at its peak; 0 where the system does not tell."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith(_PEAK)).split()[1]) << 10
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def duration(seconds: float) -> str:
    """Say how long something takes, to two figures: 8 s, 3 min 20 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def as_text(usage: Usage) -> str:
    """Say it in words: 2 min 10 s and 1.1 GB; what the system does not tell is left out."""
    memory = f" and {usage.memory / 1e9:.2g} GB" if usage.memory else ""
    device = f" ({usage.device_memory / 1e9:.2g} GB on the accelerator)" if usage.device_memory else ""
    return f"{duration(usage.seconds)}{memory}{device}"


def _devices() -> range:
    """Give the accelerators' numbers, where torch is loaded and uses any."""
    torch = sys.modules.get("torch")
    return range(torch.cuda.device_count() if torch is not None and torch.cuda.is_initialized() else 0)
