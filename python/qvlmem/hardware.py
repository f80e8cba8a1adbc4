# SPDX-License-Identifier: Apache-2.0
"""From a description of a machine to a configuration."""

import os
from collections.abc import Mapping

from qvlmem.manager import MemoryCompressionManager

# Physical cores of CPUs that users name. Codecs gain nothing from a second thread on a core.
_CORES = {'i5-10210u': 4, 'i5-8250u': 4, 'i7-8550u': 4, 'i7-10510u': 4, 'i3-10110u': 2}
_IO = {'nvme': 'uring', 'ssd': 'uring', 'hdd': 'threads'}
_KEYS = ('cpu_model', 'gpu_model', 'memory_size', 'storage_type')
# Up to here memory is what runs short first, beyond it time is.
_SHORT_OF_MEMORY = 8 * 2**30


def this_machine() -> dict[str, object]:
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


def configuration(hardware_config: Mapping[str, object] | None = None) -> str:
    """The configuration string for a machine.

    hardware_config: a dict with any of these keys (None: this machine); what is not named stays as it is.

    memory_size   bytes. cpu_budget is half of it: the model and the system need the rest. prefer is size up to
                  8 GiB and balanced beyond
    storage_type  nvme, ssd or hdd. io is uring, for hdd threads. prefer is size with hdd: what a slow disk has
                  to bring takes longer than any codec
    cpu_model     where it names a CPU that is known here, threads is how many cores it has
    gpu_model     a name. The dtype rules of the GPU tier follow from it; this version has no GPU tier, so that
                  it changes nothing yet

    TypeError for what is no dict, ValueError for an unknown key or a bad value.
    """
    if hardware_config is not None and not isinstance(hardware_config, Mapping):
        raise TypeError(f'hardware_config: expected a dict or None, got {hardware_config!r}')
    hardware = this_machine() if hardware_config is None else dict(hardware_config)
    unknown = sorted(str(key) for key in set(hardware) - set(_KEYS))
    if unknown:
        raise ValueError(f'hardware_config: unknown key {unknown[0]!r}; accepted: {", ".join(_KEYS)}')
    items: dict[str, int | str] = {}
    memory = hardware.get('memory_size')
    if memory is not None:
        if isinstance(memory, bool) or not isinstance(memory, (int, float)) or not 0 < memory < 2**62:
            raise _bad_value('memory_size', memory, 'bytes above 0')
        items['cpu_budget'] = int(memory) // 2
        items['prefer'] = 'size' if memory <= _SHORT_OF_MEMORY else 'balanced'
    storage = _name(hardware, 'storage_type', ', '.join(_IO))
    if storage:
        if storage not in _IO:
            raise _bad_value('storage_type', hardware['storage_type'], ', '.join(_IO))
        items['io'] = _IO[storage]
        if storage == 'hdd':
            items['prefer'] = 'size'
    model = _name(hardware, 'cpu_model', "a CPU's name")
    threads = next((cores for name, cores in _CORES.items() if name in model), None)
    if threads is not None:
        items['threads'] = threads
    _name(hardware, 'gpu_model', "a GPU's name")
    return ','.join(f'{key}:{value}' for key, value in items.items())


def _name(hardware, key, accepted):
    """The value in lower case; '' for None and where there is none."""
    value = hardware.get(key)
    if value is not None and not isinstance(value, str):
        raise _bad_value(key, value, accepted)
    return (value or '').lower()


def _bad_value(key, value, accepted):
    return ValueError(f'hardware_config: bad value {value!r} for key {key!r}; accepted: {accepted}')


def create_hardware_optimized_compression_manager(
        hardware_config: Mapping[str, object] | None = None) -> MemoryCompressionManager:
    """A MemoryCompressionManager for a machine (None: this one); its config() shows what was derived.

    hardware_config: a dict with any of cpu_model, gpu_model, memory_size (bytes) and storage_type (nvme, ssd or
    hdd). memory_size gives cpu_budget and prefer, storage_type io (hdd: prefer too), a known cpu_model threads;
    gpu_model changes nothing in a version without a GPU tier. TypeError for what is no dict, ValueError for an
    unknown key or a bad value.
    """
    return MemoryCompressionManager(configuration(hardware_config))
