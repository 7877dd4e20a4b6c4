"""Facts about this machine and this process that Python has no portable name for."""

from __future__ import annotations

import platform
import sys
from pathlib import Path


def peak_rss_bytes() -> int | None:
    """Highest resident memory of this process so far, in bytes; None where it cannot be asked."""
    if sys.platform == "win32":
        return _windows_peak()
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss survives exec on Linux, so it may be the parent's; VmHWM is not
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _windows_peak() -> int | None:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS of psapi.h
        _fields_ = (
            ("cb", wintypes.DWORD),
            ("PageFaultCount", wintypes.DWORD),
            *((f"size_{index}", ctypes.c_size_t) for index in range(8)),
        )

    loader = getattr(ctypes, "WinDLL", None)
    if loader is None:
        return None
    counters = Counters()
    counters.cb = ctypes.sizeof(Counters)
    process = loader("kernel32").GetCurrentProcess
    process.restype = wintypes.HANDLE
    info = loader("psapi").GetProcessMemoryInfo
    info.argtypes = (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD)
    if not info(process(), ctypes.byref(counters), counters.cb):
        return None
    return int(counters.size_0)  # PeakWorkingSetSize


def cpu_name() -> str:
    """What the processor calls itself, for reports."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


__all__ = ["cpu_name", "peak_rss_bytes"]
