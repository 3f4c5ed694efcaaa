#!/usr/bin/env python3
"""Draws the values of α that a sweep tries, each an --alpha-map file: a grid, or a seeded log-uniform random search.

OUT/point_000.json, point_001.json, … are {"pattern": α, …}; the same arguments give the same files.
"""
import json
import math
import random
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from support import InvalidInput, Parser, read_json_object, run, text_config

LINEAR = re.compile(r"(?:^|\.)(?:model|decoder|language_model)\.layers\.(\d+)\.(.+)\.weight$")  # of the text model: no vision tower's
EXPERT = re.compile(r"\.experts\.\d+\.")
GATE = re.compile(r"\.(shared_expert_)?gate$")  # what weights experts, and is not quantized


def linears_of(model):
    """Decoder layers, and the kinds of linears below one, in the model's order: experts are not told apart, and what weights them is none.
    Layers of the files behind those that config.json counts predict further tokens, and are no part of it."""
    files = sorted(Path(model).glob("*.safetensors"))
    if not files:
        raise InvalidInput(f"{model} has no safetensors files")
    end = text_config(read_json_object(Path(model) / "config.json")).get("num_hidden_layers", math.inf)
    layers, names = set(), {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                sizes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}
        except SafetensorError as error:
            raise InvalidInput(f"{file} is not a whole safetensors file (or a Git LFS pointer to one): {error}") from None
        for key, size in sizes.items():
            found = LINEAR.search(key)
            if found and int(found[1]) < end and len(size) == 2:
                layers.add(int(found[1]))
                if not GATE.search(found[2]):
                    names[EXPERT.sub(".experts.*.", found[2])] = None
    if not names:
        raise InvalidInput(f"{model} has no tensors named ….model.layers.N.….weight")
    return len(layers), list(names)


def number(text, option):
    try:
        value = float(text)
    except ValueError:
        raise InvalidInput(f"{option}: '{text}' is not a number") from None
    if not (math.isfinite(value) and 0 <= value <= 1e6):
        raise InvalidInput(f"{option}: {text} must be from 0 to 1e6")
    return value


def draw_points(count, seed, low, high, scope, model):
    """Random maps. `scope`: one α for the whole model, one for each kind of module, or one for each layer."""
    draw = random.Random(seed)

    def alpha():
        return float(f"{math.exp(draw.uniform(math.log(low), math.log(high))):.4g}")

    if scope != "model":
        layers, names = linears_of(model)
        patterns = [f"*.{name}" for name in names] if scope == "module" else [f"*.layers.{layer}.*" for layer in range(layers)]
    else:
        patterns = ["*"]
    return [{pattern: alpha() for pattern in patterns} for _ in range(count)]


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder for the point_NNN.json files")
    parser.add_argument("--grid", help="values of α with commas between, like 0,0.01,0.1,1")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="N random draws, log-uniform between --low and --high")
    parser.add_argument("--scope", choices=("model", "module", "layer"), default="model",
                        help="random draws: one α for the model (default), for each kind of module, or for each layer")
    parser.add_argument("--model", help="folder of the model; for --scope module and layer")
    parser.add_argument("--low", default="0.001")
    parser.add_argument("--high", default="10")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    low, high = number(options.low, "--low"), number(options.high, "--high")
    if not 0 < low < high:
        raise InvalidInput("--low must be above 0 and below --high")
    if options.random < 0:
        raise InvalidInput(f"--random must be 0 or more, not {options.random}")
    if options.scope != "model" and not options.model:
        raise InvalidInput(f"--scope {options.scope} needs --model, to know its modules")
    points = [{"*": number(text, "--grid")} for text in options.grid.split(",")] if options.grid else []
    points += draw_points(options.random, options.seed, low, high, options.scope, options.model)
    if not points:
        raise InvalidInput("no values of α: give --grid, --random, or both")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for index, point in enumerate(points):
        file, text = out / f"point_{index:03}.json", json.dumps(point, indent=1) + "\n"
        if file.exists() and file.read_text() != text:
            raise InvalidInput(f"{file} holds other values: they belong to another sweep; name another folder")
        file.write_text(text)
    if (out / f"point_{len(points):03}.json").exists():
        raise InvalidInput(f"{out} holds more than {len(points)} points: they belong to another sweep; name another folder")
    print(len(points))


if __name__ == "__main__":
    run(main)
