# SPDX-License-Identifier: Apache-2.0
"""Bytes between tensors and files: whole, in place, and never half a file."""

import contextlib
import ctypes
import errno
import os
import secrets
import stat

READ_BYTES = 1 << 30  # a single read of the kernel ends below 2 GiB


def byte_view(tensor):
    """A writable memoryview of a contiguous CPU tensor's bytes, which keeps the tensor alive.

    (PyTorch's own way goes by numpy, which PyTorch does not require.)
    """
    if tensor.nbytes == 0:
        return memoryview(bytearray())
    array = (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())
    array.tensor = tensor
    return memoryview(array).cast('B')


def open_regular(path):
    """A regular file, opened to be read without a buffer between. OSError for anything else."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise _not_regular(path, mode)
    return open(path, 'rb', buffering=0)


def read_at(file, offset, view):
    """Fills `view` from `offset` on. EOFError where the file ends before."""
    file.seek(offset)
    while view:
        try:
            count = file.readinto(view[:READ_BYTES])
        except OSError as error:
            error.filename = file.name
            raise
        if not count:
            raise EOFError('the file ends too early')
        view = view[count:]


@contextlib.contextmanager
def replacing(path):
    """Yields a binary file that takes the place of `path` when the block ends.

    Until then, and where the block raises, what was at `path` stays as it is; nothing else is left behind
    (a process that is killed leaves a `.qvlmem-*.part` in that folder). A link is followed; a file that is
    replaced keeps its permissions. OSError, with `path` in it, where it cannot be written.
    """
    target = os.path.realpath(os.fsdecode(path))
    temporary = os.path.join(os.path.dirname(target), f'.qvlmem-{secrets.token_hex(16)}.part')
    try:
        permissions = _permissions(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, 'wb') as file:
            if permissions is not None:
                os.fchmod(descriptor, permissions)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
        _sync_folder(os.path.dirname(target))
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
        raise


def _permissions(target):
    """Of the file that is there; None where there is none."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise _not_regular(target, mode)
    return stat.S_IMODE(mode)


def _not_regular(path, mode):
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path))
    return OSError(errno.EINVAL, 'not a regular file', os.fsdecode(path))


def _sync_folder(folder):
    """Makes a rename last. Some file systems cannot, and say EINVAL."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
