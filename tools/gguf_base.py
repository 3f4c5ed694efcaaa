"""The original model as llama.cpp's convert_hf_to_gguf.py writes it, and whether it is what a run quantized."""
import contextlib
import re
from pathlib import Path

import gguf
import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from gguf_linears import UNREADABLE, Type, one_line
from support import InvalidInput

PLAIN = (Type.F32, Type.F16, Type.BF16)
# Where the base is of another type than the model, it is told by blocks of rows: a quantized one and its original point nearly
# the same way (a cosine of 0.8 and more at 2 bits) and are as long, but for what α shifts.
SAME_DIRECTION, SAME_LENGTH, BLOCK_ROWS, BLOCK_COLS = 0.3, (0.4, 2.5), 64, 256


class Base:
    """The file, in one piece and of this machine's byte order."""

    def __init__(self, path):
        if not path.is_file():
            raise InvalidInput(f"--base {path} {'is not a file' if path.exists() else 'does not exist'}")
        try:
            self.reader = gguf.GGUFReader(path)
            settings = {name: entry.contents() for name, entry in self.reader.fields.items()}
            pieces = int(settings.get("split.count", 1))
        except UNREADABLE as error:
            raise InvalidInput(f"--base {path} is not a readable GGUF file: {one_line(error)}") from None
        self.path, self.architecture = path, settings.get("general.architecture")
        if not isinstance(self.architecture, str):
            raise InvalidInput(f"--base {path} does not name its architecture")
        if self.reader.byte_order != "I":
            raise InvalidInput(f"--base {path} has the bytes of its numbers in the other order than this machine")
        if pieces > 1:
            raise InvalidInput(f"--base {path} is one of {pieces} pieces; llama.cpp's llama-gguf-split --merge makes one file of them")
        known = next((arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == self.architecture), None)
        layers = settings.get(f"{self.architecture}.block_count")
        if known is None or not isinstance(layers, int) or not 0 < layers <= 10_000:
            raise InvalidInput(f"--base {path} is of the architecture {self.architecture!r}, which this version of the Python package gguf does not know")
        self._names = gguf.get_tensor_name_map(known, layers)
        self._heads = _heads_of(settings, self.architecture)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}

    def name_of(self, weight):
        """@returns the file's name of a weight, or None if it has none"""
        name = f"{self._names.get_name(weight.removesuffix('.weight'))}.weight"
        return name if name in self.tensors else None

    def experts_in(self, name):
        """How many matrices a tensor holds."""
        data = self.tensors[name].data
        return data.shape[0] if data.ndim == 3 else 1

    def order_of(self, name, expert, linear, kind):
        """In which order a tensor has the rows of a linear, told by what it holds: the original weights.

        @param kind  type of the original tensor, as safetensors calls it
        @returns (indices, or None for the model's own order; whether the weights are the run's to the bit)
        @throws InvalidInput if they are not what the run quantized
        """
        tensor = self.tensors[name]
        shape = tuple(int(size) for size in reversed(tensor.shape.tolist()))
        if shape[-2:] != (linear.rows, linear.cols) or len(shape) > 3:
            raise InvalidInput(f"{linear.title} has the shape {[linear.rows, linear.cols]}, and the tensor {name} of --base {list(shape)}: "
                               "is it the model's?")
        data = tensor.data[expert] if tensor.data.ndim == 3 else tensor.data
        orders = self._orders_of(name, linear.rows)
        for order in orders:
            if _is_origin(data, tensor.tensor_type, order, linear.hash, kind):
                return order, True
        strange = InvalidInput(f"{linear.title}: the tensor {name} of --base holds other weights than those that the run quantized")
        if _holds_all(tensor.tensor_type, kind):
            raise strange
        try:
            cols = min(BLOCK_COLS, linear.cols)  # 256 are whole blocks of every type
            original = gguf.dequantize(np.ascontiguousarray(data[:, :data.shape[1] * cols // linear.cols]), tensor.tensor_type)
        except UNREADABLE as error:
            raise InvalidInput(f"the tensor {name} of --base cannot be read: {one_line(error)}") from None
        values = linear.read().values(original.shape[1])
        for order in orders:
            if _are_alike(original, values if order is None else values[order]):
                return order, False
        raise strange

    def check_embedding(self, source_hash, kind):
        """@throws InvalidInput if its type would hold the embedding that the run read, and it is another"""
        tensor = self.tensors.get("token_embd.weight")
        if tensor is not None and _holds_all(tensor.tensor_type, kind) and not _is_origin(tensor.data, tensor.tensor_type, None, source_hash, kind):
            raise InvalidInput("the tensor token_embd.weight of --base is not the embedding that the run read")

    def _orders_of(self, name, rows):
        """The orders that a tensor's rows may have: the model's, or, of a query or key, that of heads whose two coordinates that
        turn together lie side by side: 0, half, 1, half + 1, …"""
        part = re.search(r"\.attn_([qk])\.weight$", name)
        heads = self._heads[part[1]] if part else 0
        if not heads or rows % (2 * heads):
            return [None]
        return [None, np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)]


def types_of(model):
    """@param model  as run.json describes it. @returns {name: type} of its tensors, as far as it is still where the run read it"""
    kinds = {}
    with contextlib.suppress(*UNREADABLE, SafetensorError):
        for file in model["files"]:
            with safe_open(Path(model["path"]) / file["name"], "numpy") as tensors:
                kinds.update({name: tensors.get_slice(name).get_dtype() for name in tensors.keys()})
    return kinds


def _heads_of(settings, architecture):
    """{"q": heads, "k": heads}, 0 where they are not known; where no number of key heads is said, there are as many."""
    found, heads = {}, 0
    for part, ending in (("q", ""), ("k", "_kv")):
        heads = settings.get(f"{architecture}.attention.head_count{ending}", heads)
        heads = heads[0] if isinstance(heads, list) and heads else heads
        found[part] = heads if isinstance(heads, int) and heads > 0 else 0
    return found


def _is_origin(data, stored, order, source_hash, kind):
    """Whether a matrix of the file is to the bit what the run read, with its rows back in the model's order."""
    if stored not in PLAIN or source_hash is None:
        return False
    rows = data
    if order is not None:
        rows = np.empty_like(data)
        rows[order] = data
    if xxhash.xxh3_128_hexdigest(np.ascontiguousarray(rows)) == source_hash:
        return True
    if stored != Type.F32 or kind == "F32":
        return False
    with np.errstate(over="ignore"):  # which may have been made of a narrower type
        narrower = (rows.astype(np.float16), (rows.view(np.uint32) >> 16).astype(np.uint16))
    return any(xxhash.xxh3_128_hexdigest(part) == source_hash for part in narrower)


def _holds_all(stored, kind):
    """Whether a type of the file's would hold the original tensor to the bit."""
    return stored.name == kind or (stored == Type.F32 and kind in ("F16", "BF16"))


def _are_alike(original, values):
    """Whether each block of rows of the one may be what the other was quantized from: both float32 [rows, cols]."""
    begins = np.arange(0, len(original), BLOCK_ROWS)
    product, length, own = (np.add.reduceat((a * b).sum(axis=1, dtype=np.float64), begins)
                            for a, b in ((original, values), (original, original), (values, values)))
    there = length > 0  # of zeros nothing can be told
    length, own = np.sqrt(length[there]), np.sqrt(own[there])
    shortest, longest = SAME_LENGTH
    return bool((product[there] > SAME_DIRECTION * length * own).all() and (own > shortest * length).all() and (own < longest * length).all())
