# SPDX-License-Identifier: Apache-2.0
"""What the machine has left."""

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
