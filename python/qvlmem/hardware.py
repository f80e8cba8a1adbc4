# SPDX-License-Identifier: Apache-2.0
"""From a description of a machine to a configuration."""

import os

from qvlmem.manager import MemoryCompressionManager

# Physical cores of CPUs that users name. Codecs gain nothing from a second thread on a core.
_CORES = {'i5-10210u': 4, 'i5-8250u': 4, 'i7-8550u': 4, 'i7-10510u': 4, 'i3-10110u': 2}
_IO = {'nvme': 'uring', 'ssd': 'uring', 'hdd': 'threads'}
_KEYS = ('cpu_model', 'gpu_model', 'memory_size', 'storage_type')


def this_machine():
    """The hardware_config of the machine that runs this."""
    model = ''
    try:
        with open('/proc/cpuinfo', encoding='utf-8') as lines:
            model = next((line.split(':', 1)[1].strip() for line in lines
                          if line.startswith('model name')), '')
    except OSError:
        pass
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return {'cpu_model': model, 'memory_size': memory}


def configuration(hardware_config=None):
    """The configuration string for a machine.

    hardware_config: a dict with any of cpu_model, gpu_model, memory_size (bytes) and storage_type (nvme, ssd or
    hdd); None: this machine. memory_size gives cpu_budget (half of it: the model and the system need the rest),
    storage_type gives io, a known cpu_model gives threads. gpu_model is taken and changes nothing in a
    library without CUDA. ValueError for an unknown key or a bad value.
    """
    hardware = this_machine() if hardware_config is None else dict(hardware_config)
    unknown = sorted(set(hardware) - set(_KEYS))
    if unknown:
        raise ValueError(f'hardware_config: unknown key {unknown[0]!r}; accepted: {", ".join(_KEYS)}')
    items = []
    memory = hardware.get('memory_size')
    if memory is not None:
        if isinstance(memory, bool) or not isinstance(memory, (int, float)) or not memory > 0:
            raise ValueError(f'hardware_config: bad value {memory!r} for key \'memory_size\'; accepted: bytes '
                             'above 0')
        items.append(f'cpu_budget:{int(memory) // 2}')
    storage = hardware.get('storage_type')
    if storage is not None:
        if str(storage).lower() not in _IO:
            raise ValueError(f'hardware_config: bad value {storage!r} for key \'storage_type\'; accepted: '
                             f'{", ".join(_IO)}')
        items.append(f'io:{_IO[str(storage).lower()]}')
    model = str(hardware.get('cpu_model', '')).lower()
    threads = next((cores for name, cores in _CORES.items() if name in model), None)
    if threads is not None:
        items.append(f'threads:{threads}')
    return ','.join(items)


def create_hardware_optimized_compression_manager(hardware_config=None):
    """A MemoryCompressionManager for a machine (None: this one); its config() shows what was derived."""
    return MemoryCompressionManager(configuration(hardware_config))
