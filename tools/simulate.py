#!/usr/bin/env python3
"""Predicts how long a run takes on R ranks, from measured rates: which part stops scaling, and where.

  simulate.py rates RUN_1_RANK [RUN_2_RANKS] --out rates.json     rates of this machine, out of finished runs' logs
  simulate.py check --rates rates.json RUN…                       predicted beside measured; exit code 1 where more than 20 % off
  simulate.py predict --rates rates.json|h100 --shape 70b --ranks 1,8,64     a table

The model of a run is the program's own: ranks share chunks of tokens, rows of weights and large factorizations, the sums of H and C
(packed float64) are all-reduced, codes, parts of factors and, between GPUs, weights are all-gathered, reading and writing overlap with
computing.
"""
import contextlib
import json
import math
import sys
from pathlib import Path

from model_shapes import SHAPES
from report_inputs import read_run_file
from support import InvalidInput, Parser, check_out, read_json_object, read_text, run, text_config, write_whole

# An H100 node of 8: what computes as measured on one H100 (an 8B model, 2 layers of a 70B one, and factorizations of 4096 to 28672
# columns: tests/bench/gpu_session.sh); links and disk as vendors state them, but for writing, which is what one core
# takes to pack, check and write a layer's file (2 cores of another machine, 1.0 GB/s). No run on several GPUs is behind these figures.
H100 = {"name": "H100, measured on one; links as stated", "cores_per_node": None, "ranks_per_node": 8, "forward": 6.2e14, "covariance": 3.3e14,
        "factor": 7.9e13, "factor_seconds": 1.2e-6, "columns": 7.2e13, "column_seconds": 1.2e-6, "figures": 1.25e14, "link": 3.0e11,
        "network": 2.5e10, "latency": 2e-5, "disk_read": 5e9, "disk_write": 1e9, "setup_seconds": 2, "stage_seconds": 2e-4,
        "weight_bytes": 2, "shared_reading": True, "factor_panel": 2048, "shared_least": 6144}
PHASES = ("setup", "read", "forward", "covariance", "all_reduce", "factor", "columns", "figures", "exchange", "write")


def factorization(n, ranks, rates, rate, bandwidth):
    """Seconds to compute the Cholesky factor of an n × n matrix and its triangular inverse, and for its parts to travel."""
    latency = n * rates["factor_seconds"]  # steps that wait for the one before, whatever the ranks
    alone = latency + 2 / 3 * n ** 3 / rate
    if ranks == 1 or n < rates["shared_least"]:
        return alone, 0.0
    if panel := rates["factor_panel"]:
        # Each rank factors the blocks on the diagonal, and divides all panels by them.
        own = latency + n * n * panel / 2 / rate
        moved, exchanges = 4 * n * n, n / panel + math.log2(n / 1024)
    else:
        half = n  # halves are shared as long as they are large; each rank does the rest for itself
        while half >= rates["shared_least"]:
            half /= 2
        own = latency + 2 / 3 * n * half ** 2 / rate
        moved, exchanges = 7 * n * n, 4 * n / half
    return own + max(alone - own, 0) / ranks, moved / bandwidth + exchanges * rates["latency"] * math.log2(ranks)


class Work:
    """What a run computes and moves, by stage: counted as the program counts it (src/pipeline/arithmetic.cpp)."""

    def __init__(self, shape, layers, tokens, hessian_tokens, pair_columns, chunks, squared_lengths, shifted=True):
        hidden, intermediate, _, kv, attention = shape
        self.layers, self.tokens, self.chunks = layers, tokens, max(chunks, 1)
        self.statistics_tokens = hessian_tokens + pair_columns
        self.pairs = pair_columns > 0
        self.shifted = shifted and self.pairs
        self.attention = 2 * squared_lengths * attention
        self.stages = [(attention + 2 * kv, hidden), (hidden, attention), (2 * intermediate, hidden), (hidden, intermediate)]
        self.weights = sum(rows * cols for rows, cols in self.stages)

    def predict(self, rates, ranks):
        """Seconds by phase of a run on so many ranks."""
        node = rates["ranks_per_node"]
        nodes = math.ceil(ranks / node)
        # Ranks of a CPU share its cores; ranks beyond them slow each other down.
        share = min(1.0, rates["cores_per_node"] / min(ranks, node)) if rates["cores_per_node"] else 1.0
        # The busiest rank's part of the chunks, and of the row tiles.
        part = math.ceil(self.chunks / ranks) / self.chunks

        def rows_part(rows):
            tiles = math.ceil(rows / 64)
            return math.ceil(tiles / ranks) / tiles * rows
        bandwidth = rates["link"] if nodes == 1 else min(rates["link"], rates["network"] * node)
        phases = dict.fromkeys(PHASES, 0.0)
        phases["forward"] = self.layers * self.attention * part / (rates["forward"] * share)
        for rows, n in self.stages:
            mine = rows_part(rows)
            matrices = 2 if self.pairs else 1
            phases["forward"] += self.layers * 2 * rows * n * self.tokens * part / (rates["forward"] * share)
            phases["covariance"] += self.layers * n * n * self.statistics_tokens * part / (rates["covariance"] * share)
            if ranks > 1:
                moved = matrices * 8 * n * (n + 1) / 2 * 2 * (ranks - 1) / ranks
                phases["all_reduce"] += self.layers * (moved / bandwidth + matrices * rates["latency"] * math.log2(ranks))
                phases["exchange"] += self.layers * (rows * n * (ranks - 1) / ranks / bandwidth + 8 * rates["latency"] * math.log2(ranks))
            computing, travelling = factorization(n, ranks, rates, rates["factor"] * share, bandwidth)
            phases["factor"] += self.layers * computing
            phases["exchange"] += self.layers * travelling
            columns = mine * n * n * (5 if self.shifted else 1)
            phases["columns"] += self.layers * (columns / (rates["columns"] * share) + n * rates["column_seconds"])
            phases["figures"] += self.layers * (1 if not self.pairs else 2 if self.shifted else 3) * 2 * mine * n * n / (rates["figures"] * share)
            phases["exchange"] += self.layers * rates["stage_seconds"]
        # Every node reads every layer from the shared disk, but for GPUs, which read it once and send it to each other. It overlaps
        # with computing, and so does writing; files of quantized layers are small.
        size = self.layers * self.weights * rates["weight_bytes"]
        if ranks > 1 and rates["shared_reading"]:
            phases["exchange"] += size * (ranks - 1) / ranks / bandwidth
            nodes = 1
        reading = size * nodes / rates["disk_read"]
        computing = sum(phases.values())
        writing = self.layers * self.weights * 0.55 / rates["disk_write"]
        phases["read"] = max(0.0, reading - computing)
        phases["write"] = max(0.0, writing - computing) + writing / max(self.layers, 1)
        phases["setup"] = rates["setup_seconds"]
        return phases


def read_events(path):
    """What a log says happened; as in fairgptq status a last line without its end, and lines that are not JSON, are passed over."""
    events = []
    for line in read_text(path).split("\n")[:-1]:
        with contextlib.suppress(ValueError, RecursionError):
            events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict) and isinstance(event.get("event"), str)]


def read_run(folder):
    """A finished, uninterrupted run: its Work, its ranks, and the event of its end, with the seconds of its phases (the mean over ranks)."""
    folder = Path(folder)
    of_run = read_run_file(folder)
    events = read_events(folder / "log.jsonl")
    starts = [event for event in events if event["event"] == "start"]
    done = events[-1] if events else {}
    if len(starts) != 1 or done.get("event") != "done" or "hessian_tokens" not in starts[0]:
        raise InvalidInput(f"{folder} is not a run that went from start to end at once; others' times say nothing of a whole run")
    try:
        done |= {"seconds": done["seconds"], "phases": {phase: done["phases"][phase] for phase in PHASES}}
        return work_of(folder, of_run, starts[0]), starts[0]["ranks"], done
    except KeyError as error:
        raise InvalidInput(f"{folder}: run.json, log.jsonl or the model's config.json lacks {error}") from None


def work_of(folder, of_run, start):
    """@param start  the log's first event"""
    config = text_config(read_json_object(Path(of_run.model["path"]) / "config.json"))
    if any("experts" in name for name in config):
        raise InvalidInput(f"{folder} is a run of a mixture of experts, which is not simulated")
    if config.get("kv_lora_rank"):
        raise InvalidInput(f"{folder} is a run of a model whose attention has latents, which is not simulated")
    if of_run.settings.keys() & {"ignore", "module_map"}:
        raise InvalidInput(f"{folder} is a run whose modules are not all quantized alike, which is not simulated")
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    shape = (config["hidden_size"], config.get("intermediate_size") or config["ffn_dim"], 0,
             config.get("num_key_value_heads", heads) * head_dim, heads * head_dim)
    return Work(shape, of_run.layers, start["forward_tokens"], start["hessian_tokens"], start["pair_columns"], start["chunks"],
                start["squared_lengths"], of_run.settings["alpha"] != 0)


def measure(folders, cores):
    """Rates out of a run of one rank, and the links' out of one of several ranks."""
    rates = {"name": f"measured: {', '.join(map(str, folders))}", "cores_per_node": cores, "ranks_per_node": 1 << 20, "column_seconds": 0.0, "factor_seconds": 0.0, "shared_reading": False,
             "link": 5e9, "network": 1.25e9, "latency": 2e-5, "disk_read": 2e9, "disk_write": 5e8,
             "stage_seconds": 0.0, "weight_bytes": 2, "factor_panel": 0, "shared_least": 512}
    work, ranks, done = read_run(folders[0])
    if ranks != 1:
        raise InvalidInput(f"{folders[0]} has {ranks} ranks: the first run must be one of a single rank")
    unit = {**rates, **dict.fromkeys(("forward", "covariance", "factor", "columns", "figures"), 1.0), "setup_seconds": 0.0}
    counted = work.predict(unit, 1)
    phases = done["phases"]
    for phase in ("forward", "covariance", "factor", "columns", "figures"):
        rates[phase] = counted[phase] / max(phases[phase], 1e-9)
    # At small sizes what a stage does beside its products counts: the rest of one rank's time, by stage.
    rates["stage_seconds"] = (phases["exchange"] + phases["all_reduce"] + phases["write"] + phases["read"]) / (4 * work.layers)
    rates["setup_seconds"] = phases["setup"]
    for folder in folders[1:]:
        other, count, ended = read_run(folder)
        if count == 1:
            raise InvalidInput(f"{folder} has one rank: the runs after the first are for the links between ranks")
        # The rank that waits least for the others waits for the wire.
        seconds = min(ended["ranks"]["all_reduce"]) / other.layers
        moved = sum((2 if other.pairs else 1) * 8 * n * (n + 1) * (count - 1) / count for _, n in other.stages)
        rates["link"] = rates["network"] = moved / max(seconds, 1e-9)
    return rates


def load_rates(name):
    if name == "h100":
        return H100
    rates = read_json_object(name)
    missing = sorted(set(H100) - set(rates))
    if missing:
        raise InvalidInput(f"{name} lacks {', '.join(missing)}: `simulate.py rates` writes such a file")
    return rates


def duration(seconds):
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def parse_ranks(text):
    try:
        ranks = [int(word) for word in text.split(",")]
    except ValueError:
        ranks = [0]
    if min(ranks) < 1:
        raise InvalidInput(f"--ranks {text}: whole numbers above 0 with commas between, like 1,8,64")
    return ranks


def predict(options):
    rates = dict(load_rates(options.rates))
    for name in ("tokens", "pair_columns", "chunk_tokens", "sequence"):
        least = 0 if name == "pair_columns" else 1
        if getattr(options, name) < least:
            raise InvalidInput(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(options, name)}")
    if options.disk is not None and options.disk <= 0:
        raise InvalidInput(f"--disk must be above 0, not {options.disk}")
    for name in options.shape.split(","):
        if name not in SHAPES:
            raise InvalidInput(f"--shape {name}: known are {', '.join(SHAPES)}")
    counts = parse_ranks(options.ranks)
    if options.disk is not None:
        rates["disk_read"] = options.disk * 1e9
    print(f"{rates['name']}; {options.tokens} calibration tokens, {options.pair_columns} pair columns, chunks of {options.chunk_tokens}; predicted")
    print(f"{'shape':<14}{'ranks':>6}{'time':>11}{'speed-up':>10}{'efficiency':>12}  most time in")
    for name in options.shape.split(","):
        shape = SHAPES[name]
        widths = (shape.hidden, shape.intermediate, shape.layers, shape.key_value_width, shape.hidden)
        chunks = math.ceil(options.tokens / options.chunk_tokens)
        work = Work(widths, shape.layers, options.tokens, options.tokens, options.pair_columns, chunks, options.tokens * options.sequence)
        alone = sum(work.predict(rates, 1).values())
        for ranks in counts:
            phases = work.predict(rates, ranks)
            total = sum(phases.values())
            most = sorted(phases, key=phases.get, reverse=True)[:3]
            print(f"{name:<14}{ranks:>6}{duration(total):>11}{alone / total:>10.1f}{100 * alone / total / ranks:>11.0f}%  "
                  + ", ".join(f"{phase} {100 * phases[phase] / total:.0f} %" for phase in most))


def check(options):
    rates = load_rates(options.rates)
    worst = 0.0
    for folder in options.runs:
        work, ranks, done = read_run(folder)
        phases = work.predict(rates, ranks)
        total, measured = sum(phases.values()), done["seconds"]
        worst = max(worst, abs(total / measured - 1))
        print(f"{folder}: {ranks} rank{'s' if ranks > 1 else ''}, predicted {total:.1f} s, measured {measured:.1f} s, {100 * (total / measured - 1):+.0f} %")
        for phase, seconds in phases.items():
            print(f"  {phase:<12}{seconds:>9.2f}{done['phases'][phase]:>9.2f}")
    if worst > options.tolerance:
        print(f"off by up to {100 * worst:.0f} %, more than {100 * options.tolerance:.0f} %")
        sys.exit(1)


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("rates", help="rates of this machine out of finished runs")
    one.add_argument("runs", nargs="+", help="a run of one rank; then one of several, for the links")
    one.add_argument("--cores", type=int, required=True, help="cores that the ranks had between them, in units of one rank's threads")
    one.add_argument("--out", required=True)
    one = commands.add_parser("predict", help="a table for shapes and ranks")
    one.add_argument("--rates", default="h100")
    one.add_argument("--shape", default="8b,70b,405b,1t")
    one.add_argument("--ranks", default="1,8,64,256,1024")
    one.add_argument("--tokens", type=int, default=262144)
    one.add_argument("--pair-columns", type=int, default=60000)
    one.add_argument("--chunk-tokens", type=int, default=8192)
    one.add_argument("--disk", type=float, help="GB/s that the shared file system gives to all nodes together (default: the rates' own)")
    one.add_argument("--sequence", type=int, default=2048, help="tokens of a sequence")
    one = commands.add_parser("check", help="predictions beside measured runs")
    one.add_argument("--rates", required=True)
    one.add_argument("--tolerance", type=float, default=0.2)
    one.add_argument("runs", nargs="+")
    options = parser.parse_args()
    if options.command == "rates":
        if options.cores < 1:
            raise InvalidInput(f"--cores must be at least 1, not {options.cores}")
        check_out(options.out)
        write_whole(options.out, (json.dumps(measure(options.runs, options.cores), indent=1) + "\n").encode())
    elif options.command == "predict":
        predict(options)
    else:
        check(options)


if __name__ == "__main__":
    run(main)
