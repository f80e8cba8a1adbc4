# SPDX-License-Identifier: Apache-2.0
"""Tensors in files: save, load, and what the commands need of files."""

import os
from collections.abc import Mapping

import torch

from qvlmem import _frame_file, _safetensors
from qvlmem._bytes import open_regular, replacing
from qvlmem._frame_file import FrameFile, FrameFileWriter, SingleFrame
from qvlmem._safetensors import SafetensorsFile, write_safetensors
from qvlmem._types import CompressedTensor

Value = torch.Tensor | CompressedTensor

__all__ = ['FrameFileWriter', 'compressor', 'load', 'open_file', 'replacing', 'save', 'write_safetensors']


def save(obj: Value | Mapping[str, Value], path: str | os.PathLike, *, method: str = 'auto', max_error: float = 0.0,
         bound: str = 'row', prefer: str = 'balanced') -> None:
    """Writes a tensor, a CompressedTensor or a dict of them (a state_dict) to a file, compressed.

    method, max_error and bound are those of `compress`; by default every bit is kept. prefer: 'balanced', what
    loads at memory speed; 'size', the smallest; 'speed', the first that saves anything. A dtype that the method
    does not take (integers, bool, complex) is stored bit by bit. CompressedTensors are stored as they are,
    parameters by their values, tensors of other devices by way of the CPU. Tensors that are the same view of
    the same memory (tied weights) are stored once, and share memory again when they are loaded; any other
    view is stored by its values. Keys are kept in order, attributes of the dict are not.

    The file is written a tensor at a time and takes its name when all of it is on the disk: until then, and
    where this raises, what was there before stays. No pickle; every byte has a checksum or one value that it
    may have (format: docs/format.md).

    Raises TypeError for anything else than the above, with its key; ValueError for bad options, or values
    that the method refuses; OSError where the file cannot be written.
    """
    compress = compressor(method, max_error, bound, prefer)
    is_dict = isinstance(obj, dict)
    values = {key: _check_value(key, value) for key, value in (obj if is_dict else {None: obj}).items()}
    with replacing(path) as file:
        writer = FrameFileWriter(file)
        numbers, names = {}, []
        for key, value in values.items():
            identity = _identity(value)
            if identity not in numbers:
                is_tensor = isinstance(value, torch.Tensor)
                try:
                    numbers[identity] = writer.add(compress(value) if is_tensor else value, as_tensor=is_tensor)
                except (ValueError, TypeError, NotImplementedError) as error:
                    raise type(error)(f'qvlmem.save: {_label(key)}: {error}') from None
            names.append((key, numbers[identity]))
        writer.finish(names if is_dict else None)


def load(path: str | os.PathLike, *, device: torch.device | str | None = None) -> Value | dict[str, Value]:
    """What `save` wrote: a tensor, a CompressedTensor or a dict. Opens safetensors files, too.

    device: where the tensors go; None: the CPU. Nothing requires grad. A file with the bytes of `pack` gives
    its CompressedTensor. Takes the memory of the result and of the largest tensor's frame.

    Raises ValueError for a file that is damaged or of another kind, with the name of the damaged tensor;
    OSError where it cannot be read.
    """
    device = torch.device('cpu' if device is None else device)
    with open_file(path) as source:
        values = [value if device.type == 'cpu' else value.to(device) for value in source.values()]
        if source.names is None:
            return values[0]
        loaded, taken = {}, set()
        for name, number in source.names:
            value = values[number]
            # Tied tensors share memory, and are objects of their own.
            again = number in taken and isinstance(value, torch.Tensor)
            loaded[name] = value.detach() if again else value
            taken.add(number)
        return loaded


def open_file(path):
    """The Source in a file of frames, a single frame or a safetensors file, told apart by their bytes."""
    path = os.fsdecode(path)
    file = open_regular(path)
    try:
        size = os.fstat(file.fileno()).st_size
        head = file.read(9)
        if head.startswith(_frame_file.MAGIC):
            return FrameFile(path, file, size)
        if head.startswith(_frame_file.FRAME_MAGIC):
            return SingleFrame(path, file, size)
        if _safetensors.looks_like(head, size):
            return SafetensorsFile(path, file, size)
        raise ValueError(f'{path} is not a safetensors file and no file of frames, or its head is damaged')
    except BaseException:
        file.close()
        raise


def compressor(method, max_error, bound, prefer):
    """A function from a tensor to a CompressedTensor. ValueError for options that there are not."""
    manager = torch.classes.qvlmem.CompressionManager(f'prefer:{prefer},max_error:{float(max_error)!r},bound:{bound}')
    manager.compress_tensor(torch.empty(0), method)

    def compress(x):
        return manager.compress_tensor(x.detach().cpu(), method if takes(method, x.dtype) else 'auto')
    return compress


def takes(method, dtype):
    """Whether compress takes a dtype by this method."""
    return (method in ('auto', 'lossless', 'none') or dtype in (torch.float32, torch.float16, torch.bfloat16)
            or (method, dtype) == ('fp16', torch.float64))


def _check_value(key, value):
    """The value; TypeError where it cannot be saved."""
    if key is not None and not isinstance(key, str):
        raise TypeError(f'qvlmem.save: expected keys to be str, got {key!r}')
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided and not value.is_meta and not value.is_quantized:
            return value
        got = f'one of layout {value.layout}, device {value.device}, dtype {value.dtype}'
        raise TypeError(f'qvlmem.save: expected {_label(key)} to be a dense tensor with values, got {got}')
    if isinstance(value, torch.ScriptObject) and value._type().name() == 'CompressedTensor':
        return value
    raise TypeError(f'qvlmem.save: expected {_label(key)} to be a tensor or a CompressedTensor'
                    f'{", or obj a dict of them" if key is None else ""}, got {type(value).__name__}')


def _label(key):
    return 'obj' if key is None else f'obj[{key!r}]'


def _identity(value):
    """Equal for what is stored once: the same view of the same memory, the same CompressedTensor."""
    if not isinstance(value, torch.Tensor) or value.numel() == 0:
        return id(value)
    return (value.device, value.untyped_storage().data_ptr(), value.storage_offset(), value.dtype, value.shape,
            value.stride(), value.is_conj(), value.is_neg())
