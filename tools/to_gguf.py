#!/usr/bin/env python3
"""Puts a run's codes into a GGUF file, for llama.cpp and what is built on it (Ollama, LM Studio).

The file is a copy of one that llama.cpp's convert_hf_to_gguf.py makes of the original model, with its tokenizer and settings;
in place of each quantized linear stand the run's own codes and scales, in the type that holds them as they are. Nothing is
quantized anew, but for what --embeddings asks for.
"""
import contextlib
import json
import os
import re
from collections import Counter
from pathlib import Path

import gguf
import numpy as np

from gguf_base import PLAIN, Base, kind_of, types_of
from gguf_linears import BLOCK, Type, read_layer
from report_inputs import read_run_file
from support import InvalidInput, Parser, run

FILE_TYPE = {Type.Q4_0: gguf.LlamaFileType.MOSTLY_Q4_0, Type.Q4_1: gguf.LlamaFileType.MOSTLY_Q4_1, Type.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0}
# Linears that are two tensors there: DeepSeek's keys and values, one of them transposed, and Qwen3-Next's, by heads.
PARTED = ("self_attn.kv_b_proj", "linear_attn.in_proj_qkvz")
EXPERT = re.compile(r"\.experts\.(\d+)\.")


class Conversion:
    """What goes into the new file; that it can be made is found out before any of it is written."""

    def __init__(self, found, base, embeddings):
        self.run, self.base = found, base
        self.linears = {}  # {tensor: those that go into it, of experts in their order}
        self.lacking = []  # those that the base has no tensor for
        self.off = 0.0  # how far a value is off at most, in steps of its grid
        self.alike = 0  # linears of which no more is known than that the base is like what the run read
        kinds = types_of(found.model)
        for layer in range(found.layers):
            self._add_layer(layer, kinds)
        strange = next((linear for linear in self.lacking if linear.name not in PARTED), None)
        if strange:
            raise InvalidInput(f"--base {base.path} has no tensor for {strange.title}: is it the model's, and made by a converter that "
                               "knows it, without --fuse-qkv and --fuse-gate-up-exps?")
        if not self.linears:
            raise InvalidInput(f"{found.path} has no quantized linear that GGUF holds")
        self.types = {name: self._type_of(name, linears) for name, linears in self.linears.items()}
        self.further = {}
        for name in ("token_embd.weight", "output.weight"):
            tensor = base.tensors.get(name)
            if embeddings == "q8_0" and tensor is not None and tensor.tensor_type in PLAIN and tensor.shape[0] % BLOCK == 0:
                self.further[name] = Type.Q8_0
        self.orders = {name: [self._order_of(name, expert, linear, kinds) for expert, linear in enumerate(linears)]
                       for name, linears in self.linears.items()}

    def _add_layer(self, layer, kinds):
        file = self.run.path / "layers" / f"layer_{layer:04}.h5"
        if not file.is_file():
            raise InvalidInput(f"{self.run.path} has not finished layer {layer} of {self.run.layers}: go on with fairgptq quantize --resume")
        found = read_layer(file, layer, self.run.fingerprint)
        for linear in found.linears:
            tensor = self.base.name_of(f"model.layers.{layer}.{EXPERT.sub('.experts.', linear.name)}.weight")
            if tensor:
                self.linears.setdefault(tensor, []).append(linear)
            else:
                self.lacking.append(linear)
        if layer == 0:
            embedding = next((name for name in found.sources if name.endswith("embed_tokens.weight")), None)
            self.base.check_embedding(found.sources.get(embedding), kinds.get(embedding, ""))

    def _type_of(self, tensor, linears):
        experts = self.base.experts_in(tensor)
        title = f"layer {linears[0].layer}, {EXPERT.sub('.experts.*.', linears[0].name)}"
        if len(linears) != experts:
            raise InvalidInput(f"{title}: GGUF has all {experts} experts in one tensor, and the run quantized {len(linears)} of them")
        kinds = {linear.type() for linear in linears}
        if len(kinds) > 1:
            raise InvalidInput(f"{title}: GGUF has all experts in one tensor of one type, and these have {len(kinds)} "
                               f"({', '.join(sorted(kind.name for kind in kinds))})")
        return kinds.pop()

    def _order_of(self, tensor, expert, linear, kinds):
        order, exact = self.base.order_of(tensor, expert, linear, kind_of(kinds, linear.source))
        self.alike += not exact
        return order

    def type(self, tensor):
        return self.types.get(tensor.name, self.further.get(tensor.name, tensor.tensor_type))

    def shape(self, tensor):
        """As numpy has it: of a quantized type its last is in bytes."""
        kind = self.type(tensor)
        if kind == tensor.tensor_type:
            return tensor.data.shape
        return gguf.quant_shape_to_byte_shape([int(size) for size in reversed(tensor.shape.tolist())], kind)

    def data(self, tensor):
        if tensor.name not in self.linears:
            return tensor.data if self.type(tensor) == tensor.tensor_type else self._rounded(tensor)
        packed = np.empty(self.shape(tensor), np.uint8)
        for expert, (linear, order) in enumerate(zip(self.linears[tensor.name], self.orders[tensor.name])):
            blocks, off = linear.read().packed(self.types[tensor.name])
            if not off <= 0.5:
                raise InvalidInput(f"{linear.title}: its scales are too large or too small for GGUF's float16")
            self.off = max(self.off, off)
            (packed[expert] if packed.ndim == 3 else packed)[:] = order.of_blocks(blocks)
        return packed

    def _rounded(self, tensor):
        """Rows at a time: the library makes several copies in float32."""
        rounded = np.empty(self.shape(tensor), np.uint8)
        for row in range(0, len(rounded), 4096):
            part = np.ascontiguousarray(tensor.data[row:row + 4096])
            rounded[row:row + 4096] = gguf.quantize(gguf.dequantize(part, tensor.tensor_type), self.type(tensor))
        return rounded

    def write(self, path):
        """@returns bytes of the file"""
        reader = self.base.reader
        writer = gguf.GGUFWriter(path, arch=self.base.architecture)
        try:
            writer.data_alignment = int(reader.alignment)
            self._write_settings(writer)
            for tensor in reader.tensors:
                shape, kind = self.shape(tensor), self.type(tensor)
                if kind == tensor.tensor_type:
                    writer.add_tensor_info(tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, kind)
                else:
                    writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in reader.tensors:
                writer.write_tensor_data(self.data(tensor))
            for file in writer.fout:
                file.flush()
                os.fsync(file.fileno())
        finally:
            if writer.fout:
                writer.close()
        return path.stat().st_size

    def _write_settings(self, writer):
        weights = Counter()
        for name, kind in self.types.items():
            weights[kind] += len(self.linears[name])
        own = {"general.file_type": int(FILE_TYPE[weights.most_common(1)[0][0]]), "general.quantization_version": gguf.GGML_QUANT_VERSION}
        for name, entry in self.base.reader.fields.items():
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

    def report(self, out, size):
        counts = Counter(kind.name for name, kind in self.types.items() for _ in self.linears[name])
        shown = ", ".join(f"{count} as {kind}" for kind, count in sorted(counts.items()))
        exact = "with the run's values" if self.off == 0 else f"within {self.off:.3f} steps of the run's values"
        print(f"{out}: {size / 1e6:,.0f} MB; quantized linears: {shown}, {exact}")
        for note in self._notes():
            print(f"note: {note}")

    def _notes(self):
        if self.lacking:
            yield f"{len(self.lacking)} linears ({self.lacking[0].name}) stay as --base has them: GGUF keeps them in another form"
        whole = self.run.model.get("layers")
        if whole != self.run.layers:
            yield f"the run has {self.run.layers} of the model's {whole} layers; the others stay as --base has them"
        if self.alike:
            yield (f"that --base is the model was told by the likeness of {self.alike} linears: they are not of its own type (--outtype auto "
                   "gives that), or of 8-bit floats, or the model is not where the run read it")
        if self.run.settings["bits"] < 4:
            yield "GGUF's types have 4 bits or more: --bits 4 is more accurate at this size"
        if self.run.settings.get("group_size") != BLOCK:
            yield f"GGUF stores a scale for every {BLOCK} columns all the same: --group-size {BLOCK} is more accurate at this size"


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
    conversion = Conversion(read_run_file(options.run), Base(options.base), options.embeddings)
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
    conversion.report(options.out, size)


if __name__ == "__main__":
    run(main)
