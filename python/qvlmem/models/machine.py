# SPDX-License-Identifier: Apache-2.0
"""What the machine has left, and what this process takes of it."""

import ctypes
import pathlib
import re


def available_memory(proc=pathlib.Path('/proc'), cgroup=pathlib.Path('/sys/fs/cgroup')):
    """Bytes that this process may still take: the system's, or its control group's where less."""
    meminfo = (proc / 'meminfo').read_text()
    available = int(re.search(r'^MemAvailable:\s+(\d+) kB', meminfo, re.MULTILINE).group(1)) << 10
    try:
        limit = int((cgroup / 'memory.max').read_text())
        statistics = dict(line.split() for line in (cgroup / 'memory.stat').open())
        # The file cache counts as used there, and gives way.
        used = int((cgroup / 'memory.current').read_text()) - int(statistics['file'])
        available = min(available, limit - used)
    except (OSError, ValueError, KeyError):
        pass  # no control group of version 2, or one without a limit
    return available


def process_memory(proc=pathlib.Path('/proc')):
    """(resident bytes of this process now, the most they ever were)."""
    status = (proc / 'self' / 'status').read_text()
    return tuple(int(re.search(rf'^{name}:\s+(\d+) kB', status, re.MULTILINE).group(1)) << 10
                 for name in ('VmRSS', 'VmHWM'))


class _Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks',
        'keepcost')]


def allocated_bytes():
    """What the C allocator has given out and not got back; None where that is no glibc from 2.33 on."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return info.uordblks + info.hblkhd
