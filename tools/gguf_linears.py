"""A run's quantized linears as layer files have them, and in GGUF's types.

Q4_0, Q4_1 and Q8_0 have a float16 scale for every 32 columns of a row, which larger groups repeat, and Q4_1 a lowest value
beside it. Symmetric codes fit the first (to 4 bits) and the last (8 bits) as they are, asymmetric ones to 4 bits the second.
"""
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import gguf
import h5py
import numpy as np

from seal import is_whole
from support import InvalidInput

Type = gguf.GGMLQuantizationType
BLOCK = 32  # columns that have a scale in each of those types
# What the libraries raise at files that are not what they should be.
UNREADABLE = (ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError, NotImplementedError, OverflowError, MemoryError, OSError)


@dataclass
class Grid:
    """What a linear was quantized to."""

    codes: np.ndarray  # [rows, cols] uint8
    scales: np.ndarray  # [rows, groups] float32
    zeros: np.ndarray  # [rows, groups] uint8
    bits: int

    def values(self, cols):
        """The first columns, dequantized: [rows, cols] float32."""
        group = np.arange(cols) // (self.codes.shape[1] // self.scales.shape[1])
        return self.scales[:, group] * (self.codes[:, :cols].astype(np.float32) - self.zeros[:, group])

    def packed(self, kind):
        """@returns (bytes [rows, bytes of a row] as llama.cpp has them, how far a value is off at most, in steps of its grid)"""
        rows, cols = self.codes.shape
        repeated = cols // self.scales.shape[1] // BLOCK
        scales, zeros = self.scales, self.zeros.astype(np.float32)
        with np.errstate(over="ignore"):
            stored = scales.astype(np.float16)
            lowest = (-scales * zeros).astype(np.float16)  # of Q4_1
        off = np.abs(stored.astype(np.float32) - scales) * (1 << self.bits)
        blocks = np.empty((rows, cols // BLOCK, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)

        def put(at, halves):
            blocks[:, :, at:at + 2] = np.repeat(halves, repeated, axis=1)[:, :, None].view(np.uint8)

        put(0, stored)
        # Of symmetric grids zeros are 2^(bits − 1).
        if kind == Type.Q8_0:  # codes minus them, as bytes of two's complement
            blocks[:, :, 2:] = (self.codes - np.uint8(1 << (self.bits - 1))).reshape(rows, -1, BLOCK)
            begin = None
        elif kind == Type.Q4_0:
            begin, codes = 2, self.codes + np.uint8(8 - (1 << (self.bits - 1)))
        else:
            begin, codes = 4, self.codes
            put(2, lowest)
            off += np.abs(lowest.astype(np.float32) + scales * zeros)
        if begin:
            codes = codes.reshape(rows, -1, 2, BLOCK // 2)
            blocks[:, :, begin:] = codes[:, :, 0] | codes[:, :, 1] << 4
        return blocks.reshape(rows, -1), float((off / scales).max(initial=0))


@dataclass
class Linear:
    """A quantized linear of a run."""

    layer: int
    file: Path
    name: str  # in the file
    rows: int
    cols: int
    bits: int
    symmetric: bool
    source: str = None  # of the original tensor: its name,
    hash: str = None  # XXH3-128 of its bytes

    @property
    def title(self):
        return f"layer {self.layer}, {self.name}"

    def type(self):
        """The type that holds its codes."""
        if self.cols % BLOCK:
            raise InvalidInput(f"{self.title}: GGUF's types have blocks of {BLOCK} columns, and it has {self.cols}")
        if self.bits <= 4:
            return Type.Q4_0 if self.symmetric else Type.Q4_1
        if self.symmetric:
            return Type.Q8_0
        raise InvalidInput(f"{self.title}: GGUF has no type of asymmetric {self.bits}-bit codes; quantize without --asym, or with 4 bits")

    def read(self):
        """@throws InvalidInput if its groups do not lie side by side"""
        rows, cols, bits = self.rows, self.cols, self.bits
        with reading(self.file), h5py.File(self.file) as layer:
            packed, scales, zeros, index = (layer[self.name][key][()] for key in ("codes", "scales", "zeros", "group_index"))
            groups = scales.shape[1]
            if packed.dtype != np.uint8 or zeros.shape != scales.shape or zeros.dtype != np.uint8 or len(scales) != rows or index.shape != (cols,) or \
                    groups == 0 or cols % groups or cols // groups % BLOCK or not (np.isfinite(scales) & (scales > 0)).all():
                raise ValueError(f"the parts of {self.name} do not fit each other")
        if not np.array_equal(index, np.arange(cols) // (cols // groups)):
            raise InvalidInput(f"{self.file}, {self.name}: its groups' columns do not lie side by side (--order activation without --static-groups), "
                               "and GGUF cannot say where they are; --order group is as accurate and keeps them together")
        return Grid(_codes_of(packed, cols, bits), scales.astype(np.float32), zeros, bits)


@dataclass
class Layer:
    """A layer file."""

    linears: list
    sources: dict  # {name of an original tensor: XXH3-128 of its bytes}


def read_layer(path, layer, fingerprint):
    """@throws InvalidInput if the file is not whole, or of another run"""
    with reading(path):
        if not is_whole(path):
            raise InvalidInput(f"{path} does not match its seal; fairgptq quantize --resume does such a layer again")
        with h5py.File(path) as file:
            if file.attrs["fingerprint"] != fingerprint:
                raise InvalidInput(f"{path} belongs to another run than the run.json beside it")
            sources = dict(json.loads(file.attrs["source_tensors"]))
            linears = []
            for name in json.loads(file.attrs["modules"]):
                rows, cols, bits, symmetric = (int(file[name].attrs[key]) for key in ("rows", "cols", "bits", "sym"))
                if bits not in (2, 3, 4, 8) or file[name]["codes"].shape != (rows, -(-cols * bits // 8)):
                    raise ValueError(f"the codes of {name} have another size than it says")
                source = next((source for source in sources if f".{source}".endswith(f".layers.{layer}.{name}.weight")), None)
                linears.append(Linear(layer, path, name, rows, cols, bits, bool(symmetric), source, sources.get(source)))
    return Layer(linears, sources)


@contextlib.contextmanager
def reading(path):
    """Whatever is found in a layer file that does not belong there is one sentence."""
    try:
        yield
    except UNREADABLE as error:
        raise InvalidInput(f"{path} is not a whole layer file: {one_line(error)}") from None


def one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def _codes_of(packed, cols, bits):
    """[rows, cols] uint8 of what a layer file has: column j is bits j·bits … of its row."""
    if bits == 8:
        return packed
    codes = np.empty((len(packed), cols), np.uint8)
    if bits == 4 and cols % 2 == 0:
        codes[:, 0::2], codes[:, 1::2] = packed & 15, packed >> 4
        return codes
    step = max(1, (1 << 24) // max(cols, 1))  # rows at a time: every bit becomes a byte
    for row in range(0, len(packed), step):
        flat = np.unpackbits(packed[row:row + step], axis=1, bitorder="little")[:, :cols * bits].reshape(-1, cols, bits)
        codes[row:row + step] = np.packbits(flat, axis=2, bitorder="little")[:, :, 0]
    return codes
