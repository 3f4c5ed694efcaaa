"""The original model as llama.cpp's convert_hf_to_gguf.py writes it, and whether it is what a run quantized."""
import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from gguf_linears import BLOCK, UNREADABLE, Type, one_line
from support import InvalidInput

PLAIN = (Type.F32, Type.F16, Type.BF16)
# Where the base is of another type than the model, it is told by blocks of rows: a quantized one and its original point nearly
# the same way (a cosine of 0.8 and more at 2 bits) and are as long, but for what α shifts.
SAME_DIRECTION, SAME_LENGTH, BLOCK_ROWS, BLOCK_COLS = 0.3, (0.4, 2.5), 64, 256


@dataclass
class Order:
    """Where a tensor has a linear's rows and columns: indices into the model's, or None where they lie as there."""

    rows: np.ndarray = None
    cols: np.ndarray = None

    def of(self, values):
        """A matrix of the model's, as the tensor has it."""
        values = values if self.rows is None else values[self.rows]
        return values if self.cols is None else values[:, self.cols]

    def of_blocks(self, packed):
        """The same of rows of bytes, BLOCK columns after BLOCK columns."""
        if self.rows is not None:
            packed = packed[self.rows]
        if self.cols is None:
            return packed
        return packed.reshape(len(packed), len(self.cols) // BLOCK, -1)[:, self.cols[::BLOCK] // BLOCK].reshape(packed.shape)

    def undone(self, data):
        """A tensor's matrix as the model has it."""
        values = data
        if self.rows is not None:
            values = np.empty_like(data)
            values[self.rows] = data
        if self.cols is not None:
            columns = values.reshape(len(values), len(self.cols), -1)  # of two bytes each, if the library has no such type
            values = np.empty_like(columns)
            values[:, self.cols] = columns
        return values.reshape(data.shape)


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
        self._linear_heads = _linear_heads_of(settings, self.architecture)
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
        """In which order a tensor has what a linear has, told by what it holds: the original weights.

        @param kind  type of the original tensor, as safetensors calls it
        @returns (the order; whether the weights are the run's to the bit)
        @throws InvalidInput if they are not what the run quantized
        """
        tensor = self.tensors[name]
        shape = tuple(int(size) for size in reversed(tensor.shape.tolist()))
        if shape[-2:] != (linear.rows, linear.cols) or len(shape) > 3:
            raise InvalidInput(f"{linear.title} has the shape {[linear.rows, linear.cols]}, and the tensor {name} of --base {list(shape)}: "
                               "is it the model's?")
        data = tensor.data[expert] if tensor.data.ndim == 3 else tensor.data
        orders = self._orders_of(name, linear)
        for order in orders:
            if _is_origin(data, tensor.tensor_type, order, linear.hash, kind):
                return order, True
        strange = InvalidInput(f"{linear.title}: the tensor {name} of --base holds other weights than those that the run quantized")
        if _holds_all(tensor.tensor_type, kind):
            raise strange
        by_columns = any(order.cols is not None for order in orders)
        try:
            cols = linear.cols if by_columns else min(BLOCK_COLS, linear.cols)  # 256 are whole blocks of every type
            original = gguf.dequantize(np.ascontiguousarray(data[:, :data.shape[1] * cols // linear.cols]), tensor.tensor_type)
        except UNREADABLE as error:
            raise InvalidInput(f"the tensor {name} of --base cannot be read: {one_line(error)}") from None
        values = linear.read().values(cols)
        for order in orders:
            placed, _, of_values, of_all = order.of(values), *self._linear_heads
            rows = min(BLOCK_ROWS, of_all // of_values) if of_values else BLOCK_ROWS  # no more than a head that may lie elsewhere
            if _are_alike(original, placed, rows) and (not by_columns or _are_alike(original.T, placed.T, rows)):
                return order, False
        raise strange

    def check_embedding(self, source_hash, kind):
        """@throws InvalidInput if its type would hold the embedding that the run read, and it is another"""
        tensor = self.tensors.get("token_embd.weight")
        if tensor is not None and _holds_all(tensor.tensor_type, kind) and not _is_origin(tensor.data, tensor.tensor_type, Order(), source_hash, kind):
            raise InvalidInput("the tensor token_embd.weight of --base is not the embedding that the run read")

    def _orders_of(self, name, linear):
        """The orders that a tensor may have: the model's; or, of a query or key, that of heads whose two coordinates that turn
        together lie side by side (0, half, 1, half + 1, …); or, of linear attention's values, the first head of each of those
        that share a key, then the second ones."""
        part = re.search(r"\.(attn_[qk]|attn_qkv|attn_gate|ssm_out)\.weight$", name)
        part = part[1] if part else ""
        heads = self._heads.get(part, 0)
        if heads and linear.rows % (2 * heads) == 0:
            return [Order(), Order(np.arange(linear.rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1))]
        of_keys, of_values, values = self._linear_heads
        before = linear.rows - values if part == "attn_qkv" else 0  # queries and keys
        if not values or part not in ("attn_qkv", "attn_gate", "ssm_out") or before < 0 or (linear.cols if part == "ssm_out" else linear.rows - before) != values:
            return [Order()]
        shared = np.arange(values).reshape(of_keys, of_values // of_keys, -1).swapaxes(0, 1).reshape(-1)
        if part != "ssm_out":
            return [Order(), Order(rows=np.concatenate([np.arange(before), before + shared]))]
        return [Order(), Order(cols=shared)] if values // of_values % BLOCK == 0 else [Order()]


def types_of(model):
    """@param model  as run.json describes it. @returns {name: type} of its tensors, as far as it is still where the run read it"""
    kinds = {}
    with contextlib.suppress(*UNREADABLE, SafetensorError):
        for file in model["files"]:
            with safe_open(Path(model["path"]) / file["name"], "numpy") as tensors:
                kinds.update({name: tensors.get_slice(name).get_dtype() for name in tensors.keys()})
    return kinds


def kind_of(kinds, source):
    """@returns the type of a tensor, be it an expert's part of one that holds all of them; "" where it is not known"""
    if source is None or source in kinds:
        return kinds.get(source, "")
    together = re.sub(r"(\.experts\.)\d+\.(?:gate|up)_proj\.weight$", r"\1gate_up_proj", source)
    return kinds.get(re.sub(r"(\.experts\.)\d+\.down_proj\.weight$", r"\1down_proj", together), "")


def _heads_of(settings, architecture):
    """{"attn_q": heads, "attn_k": heads}, 0 where they are not known; where no number of key heads is said, there are as many."""
    found, heads = {}, 0
    for part, ending in (("attn_q", ""), ("attn_k", "_kv")):
        heads = settings.get(f"{architecture}.attention.head_count{ending}", heads)
        heads = heads[0] if isinstance(heads, list) and heads else heads
        found[part] = heads if isinstance(heads, int) and heads > 0 else 0
    return found


def _linear_heads_of(settings, architecture):
    """(heads of keys, heads of values, elements of all values) of linear attention; zeros where there is none."""
    numbers = [settings.get(f"{architecture}.ssm.{name}") for name in ("group_count", "time_step_rank", "inner_size")]
    if not all(isinstance(number, int) and number > 0 for number in numbers) or numbers[1] % numbers[0] or numbers[2] % numbers[1]:
        return 0, 0, 0
    return tuple(numbers)


def _is_origin(data, stored, order, source_hash, kind):
    """Whether a matrix of the file is to the bit what the run read, once it is back in the model's order."""
    if stored not in PLAIN or source_hash is None:
        return False
    rows = order.undone(data)
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


def _are_alike(original, values, rows):
    """Whether each block of so many rows of the one may be what the other was quantized from: both float32 [rows, cols]."""
    begins = np.arange(0, len(original), rows)
    product, length, own = (np.add.reduceat((a * b).sum(axis=1, dtype=np.float64), begins)
                            for a, b in ((original, values), (original, original), (values, values)))
    there = length > 0  # of zeros nothing can be told
    length, own = np.sqrt(length[there]), np.sqrt(own[there])
    shortest, longest = SAME_LENGTH
    return bool((product[there] > SAME_DIRECTION * length * own).all() and (own > shortest * length).all() and (own < longest * length).all())
