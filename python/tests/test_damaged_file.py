# SPDX-License-Identifier: Apache-2.0
"""Files of frames and safetensors files that are damaged, cut short or made up: refused, by name."""

import copy
import json
import os
import struct
import subprocess
import sys
import textwrap

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from safetensors.torch import save_file

import qvlmem
from qvlmem import _frame_file
from qvlmem._bytes import byte_view
from strategies import values

OBJ = {'first': values('normal', (3, 5), torch.float32), 'second': torch.arange(9),
       'third': qvlmem.compress(values('normal', (2, 33), torch.float32), 'int8')}


def frame_bytes(compressed):
    return bytes(byte_view(torch.ops.qvlmem.pack(compressed)))


def file_of(index, frames, method='none'):
    """A file with these frames (bytes) and this index (bytes, or what json.dumps takes)."""
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    data = bytearray(_frame_file.HEAD.pack(_frame_file.MAGIC, 1))
    for frame in frames:
        data += bytes(-len(data) % 64) + frame
    data += bytes(-len(data) % 64)
    begin = len(data)
    data += frame_bytes(qvlmem.compress(torch.tensor(list(text), dtype=torch.uint8), method))
    return bytes(data + _frame_file.TAIL.pack(begin, _frame_file.END))


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """(bytes, index, [(name, begin, end)]) of a small file; a frame ends where the next begins."""
    path = tmp_path_factory.mktemp('saved') / 'file'
    qvlmem.save(OBJ, path)
    data = path.read_bytes()
    begin = _frame_file.TAIL.unpack(data[-16:])[0]
    index = json.loads(data[begin:-16][data[begin:-16].index(b'{'):])
    places, end = [], 64
    for (name, _), frame in zip(index['names'], index['frames'], strict=True):
        places.append((name, end, _frame_file.aligned(end + frame['bytes'])))
        end = places[-1][2]
    return data, index, places


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'file'


def refused(path, data):
    """What the error says."""
    path.write_bytes(data)
    with pytest.raises(ValueError) as raised:
        qvlmem.load(path)
    assert str(raised.value).startswith(str(path)), raised.value
    return str(raised.value)


def test_what_file_of_makes_is_what_save_makes(saved, path):
    data, index, places = saved
    frames = [data[begin:begin + frame['bytes']]
              for (_, begin, _), frame in zip(places, index['frames'], strict=True)]
    path.write_bytes(file_of(index, frames))
    loaded = qvlmem.load(path)
    assert torch.equal(loaded['first'], OBJ['first']) and torch.equal(loaded['second'], OBJ['second'])


@pytest.mark.parametrize('flip', [1, 0x80, 0xff])
def test_every_changed_byte_is_refused_and_names_its_tensor(saved, path, flip):
    data, _, places = saved
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= flip
        said = refused(path, changed)
        inside = [name for name, begin, end in places if begin <= position < end]
        if inside:
            assert f"tensor '{inside[0]}' is damaged" in said, (position, said)
        else:
            assert "tensor '" not in said and ('damaged' in said), (position, said)


def test_every_truncation_is_refused(saved, path):
    data, _, _ = saved
    for length in range(len(data)):
        said = refused(path, data[:length])
        assert 'damaged' in said and "tensor '" not in said, (length, said)


def test_bytes_after_the_end_are_refused(saved, path):
    data, _, _ = saved
    for more in (b'\0', b'\0' * 64, data[-16:], data[-200:], data):
        assert 'damaged' in refused(path, data + more)


def test_a_newer_version_says_so(saved, path):
    data, _, _ = saved
    assert 'of version 2, this library reads up to 1' in refused(path, data[:8] + b'\2' + data[9:])


def test_two_frames_that_changed_places_are_refused(path):
    """Each is intact, and of the size, dtype and shape that the index says."""
    qvlmem.save({'a': torch.zeros(8), 'b': torch.ones(8)}, path, method='none')
    data = path.read_bytes()
    size = _frame_file.aligned(json.loads(data[data.index(b'{'):data.rindex(b'}') + 1])['frames'][0]['bytes'])
    first, second = data[64:64 + size], data[64 + size:64 + 2 * size]
    assert "tensor 'a' is damaged" in refused(path, data[:64] + second + first + data[64 + 2 * size:])


def edits(index):
    """(what it is, an index that is wrong by one thing)."""
    def edited(change):
        other = copy.deepcopy(index)
        change(other)
        return other
    for name in ('metadata', 'frames', 'names'):
        for value in (None, 1, 'x', [1], {'a': 1}, [None], [[]], {}):
            if not (name == 'metadata' and value == {}) and not (name == 'names' and value is None):
                yield f'{name}={value}', edited(lambda i, n=name, v=value: i.update({n: v}))
        yield f'without {name}', edited(lambda i, n=name: i.pop(n))
    yield 'names=null', edited(lambda i: i.update(names=None))
    yield 'one more field', edited(lambda i: i.update(more=1))
    for field in ('bytes', 'as', 'dtype', 'shape', 'checksum'):
        choices = {'bytes': (-1, 0, 1, 2**31, 2**62, 2**63, 10**30, 10.0, '100', True, None),
                   'as': ('x', 1, None), 'dtype': ('float31', 'Tensor', '__class__', '', 1, 'int32'),
                   'shape': ([-1], [5, 3], [15], [3, 5, 2**62], [2**70], [3, 5.0], [True], 'ab', None, [1] * 65),
                   'checksum': ('', '0' * 16, 5, None)}
        for value in choices[field]:
            yield f'{field}={value}', edited(lambda i, f=field, v=value: i['frames'][0].update({f: v}))
        yield f'without {field}', edited(lambda i, f=field: i['frames'][0].pop(f))
    yield 'a frame twice', edited(lambda i: i['frames'].append(i['frames'][0]))
    yield 'a frame too few', edited(lambda i: i['frames'].pop())
    yield 'no frames', edited(lambda i: i.update(frames=[]))
    yield 'frames in another order', edited(lambda i: i['frames'].reverse())
    yield 'a name twice', edited(lambda i: i['names'].append(i['names'][0]))
    yield 'a name too few', edited(lambda i: i['names'].pop())
    for value in (-1, 3, 2**70, 0.0, True, '0', None, [0]):
        yield f'number={value}', edited(lambda i, v=value: i['names'].append(['n', v]))
    for value in (None, 1, ['first'], {}):
        yield f'name={value}', edited(lambda i, v=value: i['names'].append([v, 0]))
    yield 'a name of three', edited(lambda i: i['names'].append(['n', 0, 0]))


def test_every_index_that_is_wrong_is_refused(saved, path):
    data, index, places = saved
    frames = [data[begin:begin + frame['bytes']]
              for (_, begin, _), frame in zip(places, index['frames'], strict=True)]
    for what, edited in edits(index):
        assert 'damaged' in refused(path, file_of(edited, frames)), what


TEXTS = (b'', b'{', b'null', b'[]', b'\xff\xfe', b'{"metadata": {}, "frames": [], "names": [["\xff", 0]]}',
         b'[' * 200_000, b'{"a":' * 200_000, b'{"metadata": {}, "frames": [], "names": NaN}',
         b'{"metadata": {}, "frames": [], "names": ' + b'9' * 5000 + b'}')


@pytest.mark.parametrize('text', TEXTS, ids=lambda t: repr(t[:30]))
def test_an_index_that_is_no_json_of_ours_is_refused(path, text):
    assert 'damaged' in refused(path, file_of(text, []))


def test_an_index_of_another_codec_is_refused(path):
    """One that a few bytes could blow up."""
    index = {'metadata': {}, 'frames': [], 'names': []}
    path.write_bytes(file_of(index, []))
    assert qvlmem.load(path) == {}
    assert "method 'lossless'" in refused(path, file_of(index, [], 'lossless'))


@pytest.mark.parametrize('begin', [0, 32, 63, 65, 2**40, 2**63, 2**64 - 64])
def test_an_index_that_begins_elsewhere_is_refused(saved, path, begin):
    assert 'damaged' in refused(path, saved[0][:-16] + struct.pack('<Q', begin) + saved[0][-8:])


JSON = st.recursive(st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=8)


@given(JSON, st.sampled_from(('', 'metadata', 'frames', 'names', 'frame', 'name')), st.data())
def test_made_up_indices_are_refused_or_mean_what_they_say(saved, tmp_path, value, where, data):
    bytes_, index, places = saved
    frames = [bytes_[begin:begin + frame['bytes']]
              for (_, begin, _), frame in zip(places, index['frames'], strict=True)]
    edited = copy.deepcopy(index)
    if where in ('metadata', 'frames', 'names'):
        edited[where] = value
    elif where == 'frame':
        edited['frames'][1][data.draw(st.sampled_from(('bytes', 'as', 'dtype', 'shape', 'checksum')))] = value
    elif where == 'name':
        edited['names'][1][data.draw(st.sampled_from((0, 1)))] = value
    else:
        edited = value
    (tmp_path / 'file').write_bytes(file_of(edited, frames))
    try:
        loaded = qvlmem.load(tmp_path / 'file')
    except ValueError as error:
        assert str(error).startswith(str(tmp_path))
    else:
        assert list(loaded) == [name for name, _ in edited['names']]


def test_a_size_that_no_memory_has_is_refused_without_asking_for_it(saved, path):
    """Files whose index, head or frame claims more than there is, read with little memory to have."""
    folder = path.parent / 'hostile'
    folder.mkdir()
    data, index, places = saved
    frames = [data[begin:begin + frame['bytes']]
              for (_, begin, _), frame in zip(places, index['frames'], strict=True)]
    for number, size in enumerate((2**32, 2**40, 2**62, 2**63 - 64)):
        huge = copy.deepcopy(index)
        huge['frames'][0].update(bytes=size)
        (folder / f'bytes{number}').write_bytes(file_of(huge, frames))
        huge = copy.deepcopy(index)
        huge['frames'][0].update(shape=[size])
        (folder / f'shape{number}').write_bytes(file_of(huge, frames))
        frame = bytearray(frames[0])
        struct.pack_into('<q', frame, 56, size)  # the shape, with the old checksum
        (folder / f'frame{number}').write_bytes(file_of(index, [frame, *frames[1:]]))
        header = json.dumps({'a': {'dtype': 'F32', 'shape': [size // 4], 'data_offsets': [0, size]}}).encode()
        (folder / f'safetensors{number}').write_bytes(struct.pack('<Q', len(header)) + header)
        (folder / f'length{number}').write_bytes(struct.pack('<Q', size) + b'{}' * 50)
    script = '''
        import os, resource, sys, qvlmem
        used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
        for name in sorted(os.listdir(sys.argv[1])):
            try:
                qvlmem.load(os.path.join(sys.argv[1], name))
            except ValueError:
                print('refused')
    '''
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(script), folder], capture_output=True, text=True,
                            check=False)
    assert result.stdout.split() == ['refused'] * 20, result.stderr[-2000:]


@pytest.fixture(scope='module')
def safetensors_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp('safetensors') / 'file'
    save_file({'a': torch.ones(2, 3), 'b': torch.arange(3, dtype=torch.int16)}, path, {'format': 'pt'})
    return path.read_bytes()


def test_every_truncation_of_safetensors_is_refused(safetensors_bytes, path):
    for length in range(len(safetensors_bytes)):
        refused(path, safetensors_bytes[:length])
    assert 'goes on after its end' in refused(path, safetensors_bytes + b'\0')


ENTRY = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}


@pytest.mark.parametrize('header', [
    b'{"a":', b'{"a":1}', b'[]', b'{"__metadata__":{"a":1}}', b'{"__metadata__":3}', b'\xff\xff', b'{' * 90_000,
    b'{"a":' + json.dumps(ENTRY).encode() + b',"a":' + json.dumps(ENTRY).encode() + b'}',
    *({'a': ENTRY | change} for change in (
        {'dtype': 'F31'}, {'dtype': 'F4'}, {'dtype': 5}, {'dtype': []}, {'shape': [3]}, {'shape': [-2]},
        {'shape': [2.0]}, {'shape': 2}, {'shape': [True, 2]}, {'shape': [2**62, 0]}, {'data_offsets': [0, 4]},
        {'data_offsets': [8, 0]}, {'data_offsets': [4, 12]}, {'data_offsets': [0]}, {'data_offsets': [-8, 0]},
        {'data_offsets': None})),
    {'a': ENTRY, 'b': ENTRY}, {'a': ENTRY, 'b': ENTRY | {'data_offsets': [12, 20]}},
    {'a': {'dtype': 'F32', 'shape': [0, 2**62, 2**62], 'data_offsets': [0, 0]}}], ids=lambda h: str(h)[:60])
def test_safetensors_headers_that_are_wrong_are_refused(path, header):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    for size in (0, 8, 16, 20):
        refused(path, struct.pack('<Q', len(text)) + text + bytes(size))


def test_what_is_no_file_of_tensors_says_so(path):
    for data in (b'', b'x', b'text that goes on for a while', b'PK\3\4' + bytes(100), bytes(100)):
        assert 'is not a safetensors file and no file of frames' in refused(path, data)
    assert refused(path, b'QVLM').startswith(f'{path}: its tensor is damaged')


def test_a_file_that_shrinks_while_it_is_read_is_refused(saved, path):
    path.write_bytes(saved[0])
    with qvlmem.files.open_file(path) as source:
        os.truncate(path, 100)
        with pytest.raises(ValueError, match="tensor 'second' is damaged: the file ends too early"):
            source.read(1)
