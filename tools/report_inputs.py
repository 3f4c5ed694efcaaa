"""Reads and checks what a report is made of: REPORT.json files, run folders, and divergence files."""
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import xxhash

from support import InvalidInput, read_json_object

SETTING_WORDS = {"hessian_from": "H from {}", "solver": "{} solver", "bits": "{}-bit", "group_size": "group {}", "order": "order {}",
                 "inputs": "{} inputs", "pairs": "{} pairs", "alpha_modules": "α on {}", "alpha_layers": "α in layers {}",
                 "pair_alignment": "pairs by {}", "damp": "damping {}", "scale_search": "scale search {}",
                 "ignore": "some modules ignored", "module_map": "grids by map"}
ROUNDING = ("bits", "group_size", "scale_search", "ignore", "module_map")  # what rounding alone depends on
SOLVERS = ("joint", "reference", "reference-first-order")
NUMBERS_OF_A_MODULE = ("alpha", "reconstruction", "bias_before", "bias_after", "shift_norm", "damp_used", "seconds")


@dataclass
class Task:
    """One task's part of a report."""

    kind: str
    figures: dict  # {name: number}
    intervals: dict  # {name: (lower, upper)}
    groups: dict  # {group: {name: number}}
    data: str  # names the sequences that were scored


@dataclass
class Report:
    """What `fairgptq eval` found out about one model."""

    path: Path
    model: str
    run: str  # empty: the original model
    settings: dict  # of the run, or None
    tasks: dict
    title: str = ""


@dataclass
class Module:
    """One quantized linear."""

    layer: int
    name: str
    numbers: dict  # NUMBERS_OF_A_MODULE
    sensitivity: np.ndarray  # [cols] float32: C_jj · ‖error of column j‖


@dataclass
class Run:
    """A run folder, read from its layer files."""

    path: Path
    fingerprint: str
    settings: dict  # of the quantization
    model: dict
    calibration: dict
    layers: int
    modules: list = field(default_factory=list)
    finished: int = 0  # layers that are there; one whose modules are all ignored has none
    weights_hash: str = ""  # of the original model's tensors that the finished layers were made of
    title: str = ""


@dataclass
class Divergence:
    """How soon a model's greedy continuations leave the original's."""

    path: Path
    other: str
    tokens: int  # of each continuation
    first: list  # [prompts]: the first token that differs, `tokens` where none does
    share: list  # [prompts]: share of tokens that differ
    by_module: dict  # {module: {"fdt_mean", "sdt_mean"}}
    title: str = ""


def read_inputs(paths):
    """@returns ([Report], [Run], [Divergence]); a folder is a run, and a JSON file says itself what it is"""
    reports, runs, divergences, seen = [], [], [], {}
    for path in map(Path, paths):
        if seen.setdefault(path.resolve(), path) is not path:
            raise InvalidInput(f"{path} is named twice")
        if path.is_dir():
            runs.append(read_run(path))
            continue
        value = _read(path)
        readers = {"fairgptq-report": (read_report, reports), "fairgptq-divergence": (read_divergence, divergences)}
        if value.get("format") not in readers:
            raise InvalidInput(f"{path} is neither a report of fairgptq eval nor of fairgptq diverge (its \"format\" is "
                               f"{json.dumps(value.get('format'))[:60]})")
        if value.get("version") != 1:
            raise InvalidInput(f"{path} is of version {json.dumps(value.get('version'))[:20]}, and this program reads version 1")
        read, found = readers[value["format"]]
        found.append(read(path, value))
    _give_titles(reports + runs)
    for divergence in divergences:
        match = next((run for run in runs if run.path.resolve() == Path(divergence.other).resolve()), None)
        divergence.title = match.title if match else Path(divergence.other).name
    for subject in (*reports, *runs, *divergences):
        subject.title = _printable(subject.title)  # folders' names, too
    return reports, runs, divergences


def read_report(path, value):
    model, run, settings, tasks = (value.get(name) for name in ("model", "run", "settings", "tasks"))
    if not isinstance(model, str) or not isinstance(tasks, dict):
        raise InvalidInput(f"{path} lacks a text \"model\" or an object \"tasks\"")
    if (run is None) != (settings is None) or not (run is None or isinstance(run, str)):
        raise InvalidInput(f"{path}: \"run\" is not a text beside its \"settings\", nor are both null")
    if settings is not None:
        _check_settings(path, settings)
    return Report(path, model, run or "", settings, {name: _read_task(path, name, task) for name, task in tasks.items()})


def read_divergence(path, value):
    tokens = value.get("continuation_tokens")
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1 or not isinstance(value.get("other"), str):
        raise InvalidInput(f"{path} lacks a positive whole number \"continuation_tokens\" or a text \"other\"")
    first, share = (_list_of_numbers(path, value, name) for name in ("first_divergent_token", "divergent_share"))
    if not first or len(first) != len(share) or value.get("prompts") != len(first):
        raise InvalidInput(f"{path}: \"first_divergent_token\" and \"divergent_share\" need a number for each of its \"prompts\"")
    if any(number != int(number) or not 0 <= number <= tokens for number in first) or any(not 0 <= number <= 1 for number in share):
        raise InvalidInput(f"{path}: a first divergent token is not a whole number from 0 to {tokens}, or a share not from 0 to 1")
    by_module = value.get("by_module", {})
    if not isinstance(by_module, dict) or not all(isinstance(row, dict) for row in by_module.values()):
        raise InvalidInput(f"{path}: \"by_module\" is not an object of objects")
    return Divergence(path, value["other"], tokens, [int(number) for number in first], share,
                      {name: {key: _number(path, row, key) for key in ("fdt_mean", "sdt_mean")} for name, row in by_module.items()})


def read_run_file(path):
    """@returns what run.json says of a Run; of its layers nothing is known yet"""
    value = _read(path / "run.json")
    settings = value.get("settings")
    parts = [settings.get(name) for name in ("quantization", "model", "calibration")] if isinstance(settings, dict) else []
    if value.get("format") != "fairgptq-run" or not parts or not all(isinstance(part, dict) for part in parts) or \
            not isinstance(value.get("fingerprint"), str) or not isinstance(settings.get("layers"), int):
        raise InvalidInput(f"{path / 'run.json'} is not the run.json of a fairgptq run")
    _check_settings(path / "run.json", parts[0])
    return Run(path, value["fingerprint"], *parts, settings["layers"])


def read_run(path):
    """Settings from run.json, figures and column sensitivities from the layer files."""
    run, tensors = read_run_file(path), {}
    files = sorted((path / "layers").glob("layer_*.h5"))
    for file in files:
        found, made_of = _read_layer(file, run.fingerprint)
        run.modules += found
        tensors.update(made_of)
    if not run.modules:
        raise InvalidInput(f"{path} has no finished layer{' with quantized modules' if files else ''}: go on with fairgptq quantize --resume")
    run.finished = len(files)
    run.weights_hash = xxhash.xxh3_128_hexdigest(json.dumps(tensors, sort_keys=True).encode()) if tensors else ""
    return run


def calibration_sources(run):
    """What a run's token file says it was made from, if it is still there and holds the run's calibration data; else []."""
    try:
        with h5py.File(run.calibration["path"]) as file:
            hashes = ""
            for name in ("text", "pairs/stereotype", "pairs/anti_stereotype"):
                ids = file[name]["token_ids"][()] if name in file else np.zeros(0, np.int32)
                offsets = file[name]["offsets"][()] if name in file else np.zeros(1, np.int64)
                hashes += xxhash.xxh3_128_hexdigest(ids.tobytes()) + xxhash.xxh3_128_hexdigest(offsets.tobytes())
            if xxhash.xxh3_128_hexdigest(hashes.encode()) != run.calibration.get("digest"):
                return []
            sources = json.loads(file.attrs["sources"])
    except (OSError, KeyError, TypeError, ValueError):
        return []
    return [source for source in _printable(sources) if isinstance(source, dict)]


def _read_layer(path, fingerprint):
    try:
        with h5py.File(path) as file:
            if file.attrs["fingerprint"] != fingerprint:
                raise InvalidInput(f"{path} belongs to another run than the run.json beside it")
            layer = int(file.attrs["layer"])
            made_of = dict(json.loads(file.attrs.get("source_tensors", "{}")))
            return [_read_module(path, layer, name, file[name]) for name in json.loads(file.attrs["modules"])], made_of
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"{path} is not a whole layer file: {str(error).splitlines()[0]}") from None


def _read_module(path, layer, name, group):
    numbers = {key: float(group.attrs[key]) for key in NUMBERS_OF_A_MODULE}
    sensitivity = group["column_sensitivity"][()]
    if sensitivity.ndim != 1 or not np.isfinite(sensitivity).all() or not all(map(math.isfinite, numbers.values())):
        raise InvalidInput(f"{path}: the figures of {name} are not finite numbers")
    return Module(layer, _printable(str(name)), numbers, sensitivity)


def _read_task(path, name, task):
    where = f"{path}: the task {name}"
    if not isinstance(task, dict) or not isinstance(task.get("kind"), str) or not isinstance(task.get("data", ""), str):
        raise InvalidInput(f"{where} lacks its \"kind\"")
    groups, intervals = task.get("by_group", {}), task.get("intervals", {})
    if not isinstance(groups, dict) or not isinstance(intervals, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise InvalidInput(f"{where}: \"by_group\" or \"intervals\" is not an object")
    ranges = {key: tuple(_list_of_numbers(where, intervals, key)) for key in intervals}
    if any(len(pair) != 2 or pair[0] > pair[1] for pair in ranges.values()):
        raise InvalidInput(f"{where}: an interval is not a lower and an upper number")
    return Task(task["kind"], _figures(where, task), ranges, {group: _figures(where, row) for group, row in groups.items()},
                task.get("data", ""))


def _figures(where, row):
    """{name: number} of all that is a number; null stands for what could not be computed."""
    return {name: _number(where, row, name) for name, value in row.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)}


def _check_settings(path, settings):
    alpha = settings.get("alpha") if isinstance(settings, dict) else None
    bits = settings.get("bits") if isinstance(settings, dict) else None
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not abs(alpha) < 1e300 or not isinstance(bits, int):
        raise InvalidInput(f"{path}: the settings lack a number \"alpha\" or a whole number \"bits\"")
    if not isinstance(settings.get("solver", ""), str):
        raise InvalidInput(f"{path}: the settings' \"solver\" is not a text")


def rounds_to_nearest(settings):
    """Whether nothing of a column's error is passed on to later columns: α is 0, and H is nothing beside its damping."""
    damp = settings.get("damp", 0)
    return not settings["alpha"] and not settings.get("alpha_map") and isinstance(damp, (int, float)) and damp >= 1e6


def _title(settings, differing):
    alpha, solver = settings["alpha"], settings.get("solver", "joint")
    if rounds_to_nearest(settings):
        name, differing = "Round-to-nearest", [key for key in differing if key in ROUNDING]
    elif solver not in SOLVERS:
        name, differing = solver.replace("-", " ").capitalize(), [key for key in differing if key != "solver"]
    elif settings.get("alpha_map"):
        name = "Fair-GPTQ, α by map"
    elif alpha:
        name = f"Fair-GPTQ α = {alpha:g}"
    else:
        name, differing = "GPTQ", [key for key in differing if key not in ("solver", "pairs")]  # they have no part in it
    words = [SETTING_WORDS[key].format("pairs and text" if settings[key] == "both" else settings[key]) for key in differing
             if settings.get(key) not in (None, "given")]
    return ", ".join([name, *([] if "bits" in differing else [f"{settings['bits']}-bit"]), *words])


def _give_titles(subjects):
    """Short names: what the method is, and whatever setting is not the same in all. Equal settings, equal names: a report and
    its run; only what is still the same and lies in different places is told apart by its folder."""
    def run_of(subject):
        return subject.path.resolve() if isinstance(subject, Run) else Path(subject.run).resolve()
    quantized = [subject for subject in subjects if subject.settings is not None]
    differing = [key for key in SETTING_WORDS if len({str(subject.settings.get(key)) for subject in quantized
                                                      if not (rounds_to_nearest(subject.settings) and key not in ROUNDING)}) > 1]
    for subject in subjects:
        subject.title = "original" if subject.settings is None else _title(subject.settings, differing)
    places = {}
    for subject in quantized:
        places.setdefault(subject.title, set()).add(run_of(subject))
    for subject in quantized:
        if len(places[subject.title]) > 1:
            subject.title += f" ({distinct_ends(places[subject.title])[run_of(subject)]})"
    originals = [subject for subject in subjects if subject.settings is None]
    ends = distinct_ends({Path(subject.model) for subject in originals})
    if len(ends) > 1:
        for subject in originals:
            subject.title = f"original ({ends[Path(subject.model)]})"
    # One model measured more than once: the reports' own names.
    files = {title: distinct_ends({subject.path for subject in originals if subject.title == title})
             for title in {subject.title for subject in originals}}
    for subject in originals:
        if len(files[subject.title]) > 1:
            subject.title = f"original ({files[subject.title][subject.path]})"


def distinct_ends(paths):
    """{path: as few of its last names as tell it apart from the others}"""
    for count in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        ends = {path: str(Path(*path.parts[-count:])) for path in paths}
        if len(set(ends.values())) == len(paths):
            return ends
    return {path: str(path) for path in paths}


def _read(path):
    """The JSON object in a file, with what cannot be printed (and so cannot stand in a page) replaced in all texts."""
    try:
        return _printable(read_json_object(path))
    except RecursionError:
        raise InvalidInput(f"{path} is nested too deeply") from None


def _printable(value):
    if isinstance(value, str):
        return "".join(letter if letter.isprintable() else "\ufffd" for letter in value)
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    return value


def _list_of_numbers(where, row, name):
    value = row.get(name)
    if not isinstance(value, list):
        raise InvalidInput(f"{where}: \"{name}\" is not a list of numbers")
    return [_number(where, {name: entry}, name) for entry in value]


def _number(where, row, name):
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise InvalidInput(f"{where}: \"{name}\" is not a finite number")
    return value
