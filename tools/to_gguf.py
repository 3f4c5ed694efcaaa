#!/usr/bin/env python3
"""Puts a run's codes into a GGUF file, for llama.cpp and what is built on it (Ollama, LM Studio).

The file is a copy of one that llama.cpp's convert_hf_to_gguf.py makes of the original model, with its tokenizer and settings;
in place of each quantized linear stand the run's own codes and scales, in the type that holds them as they are: Q4_0 (to 4
bits, symmetric), Q4_1 (to 4 bits, asymmetric) or Q8_0 (to 8 bits, symmetric). Those types have a scale for every 32 columns,
which larger groups repeat. Nothing is quantized anew, but for what --embeddings asks for.
"""
import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import gguf
import h5py
import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from report_inputs import read_run
from support import InvalidInput, Parser, run
from token_file import SEAL_MAGIC, USER_BLOCK

Type = gguf.GGMLQuantizationType
BLOCK = 32  # columns that have a scale in Q4_0, Q4_1 and Q8_0
FILE_TYPE = {Type.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0, Type.Q4_1: gguf.LlamaFileType.MOSTLY_Q4_1, Type.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0}
PLAIN = (Type.F32, Type.F16, Type.BF16)
EXPERT = re.compile(r"\.experts\.(\d+)\.")
# Where the base is of another type than the model, it is told by blocks of rows: a quantized one and its original point nearly
# the same way (a cosine of 0.8 and more at 2 bits) and are as long, but for what α shifts.
SAME_DIRECTION, SAME_LENGTH, BLOCK_ROWS, BLOCK_COLS = 0.3, (0.4, 2.5), 64, 256
# What the libraries raise at files that are not what they should be.
UNREADABLE = (ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError, NotImplementedError, OverflowError, MemoryError, OSError)


@dataclass
class Module:
    """A quantized linear of the run, or the same one of all experts, that goes into one tensor."""

    layer: int
    file: Path
    names: list  # in the file, of experts in their order
    origins: list  # Origin of each

    @property
    def title(self):
        return f"layer {self.layer}, {EXPERT.sub('.experts.*.', self.names[0])}"


@dataclass
class Origin:
    """A tensor of the original model, as the run read it."""

    hash: str = None  # XXH3-128 of its bytes
    kind: str = ""  # as safetensors calls its type: F16, BF16, …; empty where the model is not there any more


@dataclass
class Grid:
    """A linear as the layer file has it."""

    codes: np.ndarray  # [rows, cols] uint8
    scales: np.ndarray  # [rows, groups] float32
    zeros: np.ndarray  # [rows, groups] uint8
    bits: int

    def values(self, cols):
        """The first columns, dequantized: [rows, cols] float32."""
        group = np.arange(cols) // (self.codes.shape[1] // self.scales.shape[1])
        return self.scales[:, group] * (self.codes[:, :cols].astype(np.float32) - self.zeros[:, group])


def read_base(path):
    """The GGUF file of the original model, in one piece and of this machine's byte order."""
    if not path.is_file():
        raise InvalidInput(f"--base {path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        reader = gguf.GGUFReader(path)
        settings = {name: entry.contents() for name, entry in reader.fields.items()}
        pieces = int(settings.get("split.count", 1))
    except UNREADABLE as error:
        raise InvalidInput(f"--base {path} is not a readable GGUF file: {one_line(error)}") from None
    if not isinstance(settings.get("general.architecture"), str):
        raise InvalidInput(f"--base {path} does not name its architecture")
    if reader.byte_order != "I":
        raise InvalidInput(f"--base {path} has the bytes of its numbers in the other order than this machine")
    if pieces > 1:
        raise InvalidInput(f"--base {path} is one of {pieces} pieces; llama.cpp's llama-gguf-split --merge makes one file of them")
    return reader


def one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


def field(reader, name, default=None):
    """The value of one of the file's settings."""
    found = reader.fields.get(name)
    return default if found is None else found.contents()


def names_of_tensors(reader, path):
    """@returns what turns a Hugging Face name into that of a tensor in the file, or None"""
    name = field(reader, "general.architecture")
    arch = next((arch for arch, known in gguf.MODEL_ARCH_NAMES.items() if known == name), None)
    layers = field(reader, f"{name}.block_count")
    if arch is None or not isinstance(layers, int) or not 0 < layers <= 10_000:
        raise InvalidInput(f"--base {path} is of the architecture {name!r}, which this version of the Python package gguf does not know")
    known = gguf.get_tensor_name_map(arch, layers)
    return lambda linear: known.get_name(linear)


def check_seal(path):
    """A layer file that a disk has changed is refused (docs/files.md, "The seal")."""
    with open(path, "rb") as file:
        words = file.read(USER_BLOCK).split(b"\n")[0].split()
        checksum, size = xxhash.xxh3_64(), 0
        while piece := file.read(1 << 24):
            checksum.update(piece)
            size += len(piece)
    if words != [SEAL_MAGIC.encode(), str(size).encode(), checksum.hexdigest().encode()]:
        raise InvalidInput(f"{path} does not match its seal; fairgptq quantize --resume does such a layer again")


@contextlib.contextmanager
def reading(file):
    """Whatever is found in a layer file that does not belong there is one sentence."""
    try:
        yield
    except UNREADABLE as error:
        raise InvalidInput(f"{file} is not a whole layer file: {one_line(error)}") from None


def kinds_of(model):
    """{name: type} of the original model's tensors, if it is still where the run read it."""
    kinds = {}
    with contextlib.suppress(*UNREADABLE, SafetensorError):
        for file in model["files"]:
            with safe_open(Path(model["path"]) / file["name"], "numpy") as tensors:
                kinds.update({name: tensors.get_slice(name).get_dtype() for name in tensors.keys()})
    return kinds


def modules_of(path, count, tensor_name, there, kinds):
    """@param kinds as kinds_of says. @returns ({tensor: Module}, [(layer, name) of what the file has no tensor for], the embedding's Origin)"""
    modules, lacking, embedding = {}, [], Origin()
    for layer in range(count):
        file = path / "layers" / f"layer_{layer:04}.h5"
        if not file.is_file():
            raise InvalidInput(f"{path} has not finished layer {layer} of {count}: go on with fairgptq quantize --resume")
        check_seal(file)
        with reading(file), h5py.File(file) as layer_file:
            names = json.loads(layer_file.attrs["modules"])
            made_of = dict(json.loads(layer_file.attrs["source_tensors"]))

        def origin_of(ending, made_of=made_of):
            name = next((name for name in made_of if name == ending or name.endswith(f".{ending}")), None)
            return Origin(made_of.get(name), kinds.get(name, ""))
        if layer == 0:
            embedding = origin_of("embed_tokens.weight")
        for name in names:
            tensor = f"{tensor_name(f'model.layers.{layer}.' + EXPERT.sub('.experts.', name))}.weight"
            if tensor in there:
                module = modules.setdefault(tensor, Module(layer, file, [], []))
                module.names.append(name)
                module.origins.append(origin_of(f"layers.{layer}.{name}.weight"))
            else:
                lacking.append((layer, name))
    return modules, lacking, embedding


def read_grid(file, name):
    """One linear. @throws InvalidInput if its groups do not lie side by side"""
    with reading(file), h5py.File(file) as layer:
        group = layer[name]
        bits, rows, cols = (int(group.attrs[key]) for key in ("bits", "rows", "cols"))
        packed, scales, zeros, index = (group[key][()] for key in ("codes", "scales", "zeros", "group_index"))
        groups = scales.shape[1]
        if bits not in (2, 3, 4, 8) or packed.shape != (rows, -(-cols * bits // 8)) or packed.dtype != np.uint8 or \
                zeros.shape != scales.shape or zeros.dtype != np.uint8 or len(scales) != rows or index.shape != (cols,) or \
                groups == 0 or cols % groups or cols // groups % BLOCK or not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"the parts of {name} do not fit each other")
    codes = np.empty((rows, cols), np.uint8)
    if bits == 4 and cols % 2 == 0:
        codes[:, 0::2], codes[:, 1::2] = packed & 15, packed >> 4
    elif bits == 8:
        codes[:] = packed
    else:
        step = max(1, (1 << 24) // max(cols, 1))  # rows at a time: every bit becomes a byte
        for row in range(0, rows, step):
            flat = np.unpackbits(packed[row:row + step], axis=1, bitorder="little")[:, :cols * bits].reshape(-1, cols, bits)
            codes[row:row + step] = np.packbits(flat, axis=2, bitorder="little")[:, :, 0]
    if not np.array_equal(index, np.arange(cols) // (cols // groups)):
        raise InvalidInput(f"{file}, {name}: its groups' columns do not lie side by side (--order activation without --static-groups), "
                           "and GGUF cannot say where they are; --order group is as accurate and keeps them together")
    return Grid(codes, scales.astype(np.float32), zeros, bits)


def type_of(file, name, title):
    """The type that holds a linear's codes."""
    with reading(file), h5py.File(file) as layer:
        bits, cols, symmetric = (int(layer[name].attrs[key]) for key in ("bits", "cols", "sym"))
    if cols % BLOCK:
        raise InvalidInput(f"{title}: GGUF's types have blocks of {BLOCK} columns, and it has {cols}")
    if bits <= 4:
        return Type.Q4_0 if symmetric else Type.Q4_1
    if symmetric:
        return Type.Q8_0
    raise InvalidInput(f"{title}: GGUF has no type of asymmetric {bits}-bit codes; quantize without --asym, or with 4 bits")


def pack(grid, kind):
    """@returns (bytes [rows, bytes of a row] as llama.cpp has them, how far a value is off at most, in steps of its grid)"""
    rows, cols = grid.codes.shape
    repeated = cols // grid.scales.shape[1] // BLOCK
    scales, zeros = grid.scales, grid.zeros.astype(np.float32)
    with np.errstate(over="ignore"):
        stored = scales.astype(np.float16)
        lowest = (-scales * zeros).astype(np.float16)  # of Q4_1
    off = np.abs(stored.astype(np.float32) - scales) * (1 << grid.bits)
    blocks = np.empty((rows, cols // BLOCK, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8)

    def put(at, halves):
        blocks[:, :, at:at + 2] = np.repeat(halves, repeated, axis=1)[:, :, None].view(np.uint8)

    put(0, stored)
    if kind == Type.Q8_0:
        # Of symmetric grids zeros are 2^(bits − 1), and codes minus them as bytes of two's complement.
        blocks[:, :, 2:] = (grid.codes - np.uint8(1 << (grid.bits - 1))).reshape(rows, -1, BLOCK)
    else:
        begin = 2
        codes = grid.codes
        if kind == Type.Q4_0:
            codes = codes + np.uint8(8 - (1 << (grid.bits - 1)))
        else:
            begin = 4
            put(2, lowest)
            off += np.abs(lowest.astype(np.float32) + scales * zeros)
        codes = codes.reshape(rows, -1, 2, BLOCK // 2)
        blocks[:, :, begin:] = codes[:, :, 0] | codes[:, :, 1] << 4
    return blocks.reshape(rows, -1), float((off / scales).max(initial=0))


def heads_side_by_side(rows, heads):
    """Where each row of a query or key of GGUF's comes from, for models whose two coordinates that turn together lie there side
    by side: 0, half, 1, half + 1, …"""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def orders_of(reader, tensor, rows):
    """The orders that a tensor's rows may have: the model's, or that of heads whose coordinates lie side by side."""
    orders = [np.arange(rows)]
    part = re.search(r"\.attn_([qk])\.weight$", tensor)
    if part:
        count = f"{field(reader, 'general.architecture')}.attention.head_count"
        heads = field(reader, count)
        if part[1] == "k":  # where it is not said, there are as many
            heads = field(reader, f"{count}_kv", heads)
        heads = heads[0] if isinstance(heads, list) else heads
        if isinstance(heads, int) and heads > 0 and rows % (2 * heads) == 0:
            orders.append(heads_side_by_side(rows, heads))
    return orders


def matrix_of(tensor, expert):
    """A tensor's matrix as its file has it."""
    return tensor.data[expert] if tensor.data.ndim == 3 else tensor.data


def is_origin(data, kind, order, origin):
    """Whether a matrix of the file is to the bit what the run read, with its rows back in the model's order."""
    if kind not in PLAIN or origin.hash is None:
        return False
    rows = np.empty_like(data)
    rows[order] = data
    if xxhash.xxh3_128_hexdigest(rows) == origin.hash:
        return True
    if kind != Type.F32 or origin.kind == "F32":
        return False
    with np.errstate(over="ignore"):  # which may have been made of a narrower type
        narrower = (rows.astype(np.float16), (rows.view(np.uint32) >> 16).astype(np.uint16))
    return any(xxhash.xxh3_128_hexdigest(part) == origin.hash for part in narrower)


def holds_all(kind, origin):
    """Whether a type of the file's would hold the original tensor to the bit."""
    return kind.name == origin.kind or (kind == Type.F32 and origin.kind in ("F16", "BF16"))


def are_alike(original, values):
    """Whether each block of rows of the one may be what the other was quantized from: both float32 [rows, cols]."""
    begins = np.arange(0, len(original), BLOCK_ROWS)
    product, length, own = (np.add.reduceat((a * b).sum(axis=1, dtype=np.float64), begins)
                            for a, b in ((original, values), (original, original), (values, values)))
    there = length > 0  # of zeros nothing can be told
    length, own = np.sqrt(length[there]), np.sqrt(own[there])
    shortest, longest = SAME_LENGTH
    return bool((product[there] > SAME_DIRECTION * length * own).all() and (own > shortest * length).all() and (own < longest * length).all())


class Conversion:
    """What goes into the new file."""

    def __init__(self, found, base, base_path, embeddings):
        self.run, self.reader = found, base
        tensors = {tensor.name: tensor for tensor in base.tensors}
        self.modules, self.lacking, self.embedding = modules_of(
            found.path, found.layers, names_of_tensors(base, base_path), tensors, kinds_of(found.model))
        # DeepSeek's keys and values are two tensors there, one of them transposed.
        strange = [entry for entry in self.lacking if entry[1] != "self_attn.kv_b_proj"]
        if strange:
            layer, name = strange[0]
            raise InvalidInput(f"--base {base_path} has no tensor for layer {layer}, {name}: is it the model's, and made by a converter that "
                               "knows it, without --fuse-qkv and --fuse-gate-up-exps?")
        if not self.modules:
            raise InvalidInput(f"{found.path} has no quantized linear that GGUF holds")
        self.types = {}
        for name, module in self.modules.items():
            experts = tensors[name].data.shape[0] if tensors[name].data.ndim == 3 else 1
            if len(module.names) != experts:
                raise InvalidInput(f"{module.title}: GGUF has all {experts} experts in one tensor, and the run quantized {len(module.names)} of them")
            kinds = {type_of(module.file, part, f"layer {module.layer}, {part}") for part in module.names}
            if len(kinds) > 1:
                raise InvalidInput(f"{module.title}: GGUF has all experts in one tensor of one type, and these have {len(kinds)} "
                                   f"({', '.join(sorted(kind.name for kind in kinds))})")
            self.types[name] = kinds.pop()
        self.further = {}
        for name in ("token_embd.weight", "output.weight"):
            tensor = tensors.get(name)
            if embeddings == "q8_0" and tensor is not None and tensor.tensor_type in PLAIN and tensor.shape[0] % BLOCK == 0:
                self.further[name] = Type.Q8_0
        self.off = 0.0
        self.alike = 0  # tensors of the base of which no more is known than that they are like what the run read

    def type(self, tensor):
        return self.types.get(tensor.name, self.further.get(tensor.name, tensor.tensor_type))

    def shape(self, tensor):
        """As numpy has it: of a quantized type its last is in bytes."""
        kind = self.type(tensor)
        if kind == tensor.tensor_type:
            return tensor.data.shape
        return gguf.quant_shape_to_byte_shape([int(size) for size in reversed(tensor.shape.tolist())], kind)

    def data(self, tensor):
        module = self.modules.get(tensor.name)
        if module is None:
            if self.type(tensor) == tensor.tensor_type:
                return tensor.data
            return self._rounded(tensor)
        packed = np.empty(self.shape(tensor), np.uint8)
        for expert, name in enumerate(module.names):
            grid = read_grid(module.file, name)
            order = self._order_of(tensor, expert, grid, module.origins[expert], f"layer {module.layer}, {name}")
            blocks, off = pack(grid, self.types[tensor.name])
            if not off <= 0.5:
                raise InvalidInput(f"layer {module.layer}, {name}: its scales are too large or too small for GGUF's float16")
            self.off = max(self.off, off)
            (packed[expert] if packed.ndim == 3 else packed)[:] = blocks[order]
        return packed

    def _rounded(self, tensor):
        """Rows at a time: the library makes several copies in float32."""
        rounded = np.empty(self.shape(tensor), np.uint8)
        for row in range(0, len(rounded), 4096):
            part = np.ascontiguousarray(tensor.data[row:row + 4096])
            rounded[row:row + 4096] = gguf.quantize(gguf.dequantize(part, tensor.tensor_type), self.type(tensor))
        return rounded

    def _order_of(self, tensor, expert, grid, origin, title):
        """In which order the tensor has the linear's rows: found by what it holds, the original weights.
        @throws InvalidInput if they are not what the run quantized"""
        shape = tuple(int(size) for size in reversed(tensor.shape.tolist()))
        if shape[-2:] != grid.codes.shape or len(shape) > 3:
            raise InvalidInput(f"{title} has the shape {list(grid.codes.shape)}, and the tensor {tensor.name} of --base {list(shape)}: is it the model's?")
        data, kind = matrix_of(tensor, expert), tensor.tensor_type
        orders = orders_of(self.reader, tensor.name, shape[-2])
        for order in orders:
            if is_origin(data, kind, order, origin):
                return order
        strange = InvalidInput(f"{title}: the tensor {tensor.name} of --base holds other weights than those that the run quantized")
        if holds_all(kind, origin):
            raise strange
        try:
            cols = min(BLOCK_COLS, shape[-1])  # 256 are whole blocks of every type
            original = gguf.dequantize(np.ascontiguousarray(data[:, :data.shape[1] * cols // shape[-1]]), kind)
        except UNREADABLE as error:
            raise InvalidInput(f"the tensor {tensor.name} of --base cannot be read: {one_line(error)}") from None
        values = grid.values(original.shape[1])
        for order in orders:
            if are_alike(original, values[order]):
                self.alike += 1
                return order
        raise strange

    def _check_embedding(self):
        tensor = next((tensor for tensor in self.reader.tensors if tensor.name == "token_embd.weight"), None)
        if tensor is not None and holds_all(tensor.tensor_type, self.embedding) and \
                not is_origin(tensor.data, tensor.tensor_type, slice(None), self.embedding):
            raise InvalidInput("the tensor token_embd.weight of --base is not the embedding that the run read")

    def write(self, path):
        """@returns bytes of the file"""
        self._check_embedding()
        arch = field(self.reader, "general.architecture")
        writer = gguf.GGUFWriter(path, arch=arch)
        try:
            writer.data_alignment = int(self.reader.alignment)
            self._write_settings(writer)
            for tensor in self.reader.tensors:
                shape, kind = self.shape(tensor), self.type(tensor)
                if kind == tensor.tensor_type:
                    writer.add_tensor_info(tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, kind)
                else:
                    writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in self.reader.tensors:
                writer.write_tensor_data(self.data(tensor))
            for file in writer.fout:
                file.flush()
                os.fsync(file.fileno())
        finally:
            if writer.fout:
                writer.close()
        return path.stat().st_size

    def _write_settings(self, writer):
        weights = {}
        for name, kind in self.types.items():
            weights[kind] = weights.get(kind, 0) + len(self.modules[name].names)
        own = {"general.file_type": int(FILE_TYPE[max(weights, key=weights.get)]), "general.quantization_version": gguf.GGML_QUANT_VERSION}
        for name, entry in self.reader.fields.items():
            if name.startswith("GGUF.") or name == "general.architecture" or name in own or name.startswith("fairgptq."):
                continue
            kind, value = entry.types[0], entry.contents()
            if kind == gguf.GGUFValueType.ARRAY and not value:
                continue  # which the library cannot write
            writer.add_key_value(name, value, kind, sub_type=entry.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
        for name, value in own.items():
            writer.add_uint32(name, value)
        writer.add_string("fairgptq.fingerprint", self.run.fingerprint)
        writer.add_float64("fairgptq.alpha", self.run.settings["alpha"])
        writer.add_string("fairgptq.settings", json.dumps(self.run.settings, sort_keys=True))


def say(conversion, out, size):
    kinds = {}
    for name, kind in conversion.types.items():
        kinds[kind.name] = kinds.get(kind.name, 0) + len(conversion.modules[name].names)
    shown = ", ".join(f"{count} as {kind}" for kind, count in sorted(kinds.items()))
    exact = "with the run's values" if conversion.off == 0 else f"within {conversion.off:.3f} steps of the run's values"
    print(f"{out}: {size / 1e6:,.0f} MB; quantized linears: {shown}, {exact}")
    if conversion.lacking:
        print(f"note: {len(conversion.lacking)} linears ({conversion.lacking[0][1]}) stay as --base has them: GGUF keeps them in another form")
    whole = conversion.run.model.get("layers")
    if whole != conversion.run.layers:
        print(f"note: the run has {conversion.run.layers} of the model's {whole} layers; the others stay as --base has them")
    if conversion.alike:
        print(f"note: that --base is the model was told by the likeness of {conversion.alike} tensors: they are not of its own type (--outtype auto "
              "gives that), or of 8-bit floats, or the model is not where the run read it")
    if conversion.run.settings["bits"] < 4:
        print("note: GGUF's types have 4 bits or more: --bits 4 is more accurate at this size")
    groups = conversion.run.settings.get("group_size")
    if groups != BLOCK:
        print(f"note: GGUF stores a scale for every {BLOCK} columns all the same: --group-size {BLOCK} is more accurate at this size")


def main():
    parser = Parser(description="Writes a run as a GGUF file for llama.cpp: a copy of the original model's, with the run's codes and scales.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished fairgptq quantize")
    parser.add_argument("--base", type=Path, required=True, metavar="MODEL.gguf",
                        help="the original model as llama.cpp's convert_hf_to_gguf.py writes it, best in the model's own type (--outtype auto)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.gguf", help="file to make; must not exist yet")
    parser.add_argument("--embeddings", choices=("as-they-are", "q8_0"), default="as-they-are",
                        help="the token embedding and the head: as --base has them, or rounded to nearest as Q8_0 (default: %(default)s)")
    options = parser.parse_args()
    if options.out.exists():
        raise InvalidInput(f"--out {options.out} exists already; name a new file or remove it")
    if not options.out.parent.is_dir():
        raise InvalidInput(f"--out {options.out}: the folder {options.out.parent} does not exist")
    if not options.run.is_dir():
        raise InvalidInput(f"{options.run} is not the folder of a run")
    conversion = Conversion(read_run(options.run), read_base(options.base), options.base, options.embeddings)
    partial = options.out.with_name(f".to_gguf-{os.getpid()}.partial")
    try:
        size = conversion.write(partial)
        partial.rename(options.out)
    except OSError as error:
        reason = error.strerror or f"{error}; is the disk full?"
        raise InvalidInput(f"--out {options.out} cannot be written: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    say(conversion, options.out, size)


if __name__ == "__main__":
    run(main)
