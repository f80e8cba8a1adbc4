# SPDX-License-Identifier: Apache-2.0
"""What other packages do, measured in their own environment: a program that peer_process.py drives.

It reads requests from standard input and answers on standard output, one JSON document a line, and sleeps in
between, so that its rounds can alternate with those of the process that asks. Run as a script by a Python that
need not have qvlmem.
"""

import functools
import importlib
import json
import os
import sys

import torch
from contestant import Contestant, relative_error, seconds, stored_bytes

FLOATS = ('float32', 'bfloat16', 'float16')


def rows_of(x, group):
    return x.reshape(-1, group or x.shape[-1])


def torchao(package, bits, group):
    primitives = importlib.import_module('torchao.quantization.quant_primitives')
    top = 2 ** (bits - 1) - 1
    range_of = (torch.int8, -top, top)

    def encode(x):
        x = rows_of(x, group)
        block = (1, x.shape[-1])
        scale, zero = primitives.choose_qparams_affine(x, primitives.MappingType.SYMMETRIC, block, *range_of)
        return primitives.quantize_affine(x, block, scale, zero, *range_of), scale, zero

    def decode(kept, x):
        q, scale, zero = kept
        return primitives.dequantize_affine(q, (1, q.shape[-1]), scale, zero, *range_of).view(x.shape)

    return Contestant('torchao quantize_affine', encode, decode)


def fbgemm(package, bits, group):
    ops = torch.ops.fbgemm
    if bits == 8:
        pack, unpack = ops.FloatToFused8BitRowwiseQuantized, ops.Fused8BitRowwiseQuantizedToFloat
    else:
        pack = functools.partial(ops.FloatToFusedNBitRowwiseQuantizedSBHalf, bit_rate=bits)
        unpack = functools.partial(ops.FusedNBitRowwiseQuantizedSBHalfToFloat, bit_rate=bits)
    return Contestant('FBGEMM rowwise', lambda x: pack(rows_of(x, group)), lambda kept, x: unpack(kept).view(x.shape))


def bitsandbytes(package, bits, group):
    functional = package.functional

    def parts(kept):
        return kept[0], kept[1].absmax

    if bits == 8:
        return Contestant('bitsandbytes blockwise', lambda x: functional.quantize_blockwise(x, blocksize=group),
                          lambda kept, x: functional.dequantize_blockwise(*kept), parts=parts)
    return Contestant('bitsandbytes nf4', lambda x: functional.quantize_4bit(x, blocksize=group, quant_type='nf4'),
                      lambda kept, x: functional.dequantize_4bit(*kept), parts=parts)


def scipy_coo(package):
    sparse = importlib.import_module('scipy.sparse')
    return Contestant('scipy coo', lambda x: sparse.coo_array(x.numpy()),
                      lambda kept, x: torch.from_numpy(kept.toarray()), parts=lambda kept: (kept.data, *kept.coords))


def as_bytes(x):
    return x.view(-1).view(torch.uint8).numpy()


def from_bytes(data, x):
    return torch.frombuffer(data, dtype=x.dtype).view(x.shape)


def blosc2(package):
    options = {'codec': package.Codec.LZ4, 'clevel': 5, 'filters': [package.Filter.BITSHUFFLE]}
    return Contestant(
        'blosc2 lz4 + bitshuffle',
        lambda x: package.compress2(as_bytes(x), typesize=x.itemsize, nthreads=torch.get_num_threads(), **options),
        lambda kept, x: from_bytes(bytearray(package.decompress2(kept, nthreads=torch.get_num_threads())), x), FLOATS)


def zstandard(package):
    return Contestant('zstd 1', lambda x: package.ZstdCompressor(level=1).compress(as_bytes(x)),
                      lambda kept, x: from_bytes(bytearray(package.ZstdDecompressor().decompress(kept)), x), FLOATS)


def zipnn(package):
    def coder():
        return package.ZipNN(input_format='torch', threads=torch.get_num_threads())
    # It changes the tensor that it compresses.
    return Contestant('ZipNN, of a clone', lambda x: coder().compress(x.clone()), lambda kept, x: coder().decompress(kept).view(x.shape),
                      ('bfloat16',))


def openzl(package):
    ext = importlib.import_module('openzl.ext')
    compressor = ext.Compressor()
    graph = ext.nodes.BFloat16Deconstruct()(compressor, ext.graphs.Store(), ext.graphs.Huffman())
    compressor.select_starting_graph(graph)

    def encode(x):
        context = ext.CCtx()
        context.ref_compressor(compressor)
        context.set_parameter(ext.CParam.FormatVersion, ext.MAX_FORMAT_VERSION)
        return context.compress([ext.Input(ext.Type.Numeric, x.view(torch.int16).view(-1).numpy())])

    def decode(kept, x):
        return torch.from_numpy(ext.DCtx().decompress(kept)[0].content.as_nparray()).view(x.dtype).view(x.shape)

    return Contestant('OpenZL, exponents by Huffman', encode, decode, ('bfloat16',))


# Uniform quantization with this element error has a relative Frobenius error of 1 %.
def element_error(x):
    return 0.01 * x.square().mean().sqrt().item() * 3**0.5


def sz3(package):
    def encode(x):
        config = package.szConfig()
        config.errorBoundMode, config.absErrorBound = package.szErrorBoundMode.ABS, element_error(x)
        config.cmprAlgo = package.szAlgorithm.NOPRED
        return package.sz.compress(x.view(-1).numpy(), config)[0]

    def decode(kept, x):
        numpy = importlib.import_module('numpy')
        return torch.from_numpy(package.sz.decompress(kept, numpy.float32, (x.numel(),))[0]).view(x.shape)

    return Contestant('SZ3, no prediction', encode, decode)


def zfp(package):
    return Contestant('zfp fixed accuracy', lambda x: package.compress_numpy(x.numpy(), tolerance=element_error(x)),
                      lambda kept, x: torch.from_numpy(package.decompress_numpy(kept)))


# Package to import, and by key what it has: a function of the package and these arguments.
PEERS = (
    ('torchao', torchao, {'int8-row': (8, None), 'int8-128': (8, 128), 'int4-64': (4, 64), 'int4-128': (4, 128)}),
    ('fbgemm_gpu', fbgemm, {'int8-row': (8, None), 'int8-128': (8, 128), 'int4-64': (4, 64), 'int4-128': (4, 128)}),
    ('bitsandbytes', bitsandbytes, {'int8-128': (8, 128), 'int4-64': (4, 64), 'int4-128': (4, 128)}),
    ('scipy', scipy_coo, {'sparse': ()}),
    ('blosc2', blosc2, {'lossless': ()}),
    ('zstandard', zstandard, {'lossless': ()}),
    ('zipnn', zipnn, {'lossless': ()}),
    ('openzl', openzl, {'lossless': ()}),
    ('pysz', sz3, {'bounded': ()}),
    ('zfpy', zfp, {'bounded': ()}),
)


class Server:
    """One method a request; what they return is the answer."""

    def __init__(self):
        self.contestants, self.missing, self.running = {}, {}, {}
        for name, make, keys in PEERS:
            try:
                package = importlib.import_module(name)
                for key, arguments in keys.items():
                    self.contestants.setdefault(key, {})
                    contestant = make(package, *arguments)
                    self.contestants[key][contestant.name] = contestant
            except Exception as error:  # of any kind: a package that is there may still not load
                self.missing[name] = f'{type(error).__name__}: {error}'.splitlines()[0]

    def describe(self):
        return {'missing': self.missing,
                'names': {key: {name: peer.dtypes for name, peer in peers.items()}
                          for key, peers in self.contestants.items()}}

    def load(self, path, dtype, shape, device):
        with open(path, 'rb') as file:
            data = bytearray(file.read())
        self.running.clear()
        self.x = torch.frombuffer(data, dtype=getattr(torch, dtype)).view(shape).to(device)
        return {}

    def open(self, key, name):
        """Encodes and decodes once, to see that it works and how well."""
        peer = self.contestants[key][name]
        before = self.x.clone()
        kept = peer.encode(self.x)
        error = relative_error(before, peer.decode(kept, self.x))
        if not torch.equal(before, self.x):
            self.x = before
            raise RuntimeError('it changes the tensor that it is given')
        x = self.x
        self.running[name] = {'encode': lambda: peer.encode(x), 'decode': lambda: peer.decode(kept, x)}
        return {'bytes': stored_bytes(peer.parts(kept)), 'error': error}

    def time(self, name, direction, calls, clock, threads):
        torch.set_num_threads(threads)
        return {'seconds': seconds(self.running[name][direction], calls, clock)}


def serve():
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what packages print is no answer
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(server, request.pop('do'))(**request)
        except Exception as error:  # of any kind: other people's code
            answer = {'failed': f'{type(error).__name__}: {error}'.splitlines()[0]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    serve()
