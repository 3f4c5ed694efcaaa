"""tools/report.py: one page that needs nothing else, every figure and plot in it, a card that the Hub reads, and refusals."""
import html
import json
import re
import shutil
from html.parser import HTMLParser

import h5py
import pytest
from figures import badness, pareto
from huggingface_hub import ModelCard
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from report_data import FINGERPRINT, MODULES, tasks, write_calibration, write_divergence, write_report, write_run
from report_inputs import read_inputs
from report_plots import Colours, power_of_ten
from running import refused, run_tool

ALONE = {"area", "br", "col", "hr", "img", "input", "link", "meta"}  # elements without an end


class Page(HTMLParser):
    """A page's elements, ids, references and texts; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.elements, self.cells, self.words, self.plots = [], [], [], [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        self.references += [value for name, value in attrs.items() if name in ("href", "src", "srcset", "data", "action", "poster")]
        self.references += re.findall(r"url\(([^)]*)\)", " ".join(value or "" for value in attrs.values()))
        if tag == "svg" and ("figure" in self.open):
            self.plots[self.elements[-3][1]["id"]] = attrs["aria-label"]
        if tag not in ALONE:
            self.open.append(tag)
        if tag == "td":
            self.cells.append([attrs.get("class"), ""])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in ALONE:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.references += re.findall(r"url\(([^)]*)\)|@import", data)
            return
        self.words.append(data)
        if "td" in self.open:
            self.cells[-1][1] += data


def report(out, *arguments):
    process = run_tool("report.py", *arguments, "--out", out)
    assert process.returncode == 0 and not process.stderr, process.stderr
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """An original, GPTQ, Fair-GPTQ at two α, their runs and divergence."""
    folder = tmp_path_factory.mktemp("inputs")
    calibration = write_calibration(folder / "tokens.h5")
    found = [write_report(folder / "original.json", tasks(20, 0.30, 60))]
    for name, alpha, perplexity, bias in (("gptq", 0, 24, 0.31), ("fair", 0.1, 25, 0.25), ("strong", 0.5, 26, 0.27)):
        run = write_run(folder / name, alpha=alpha, calibration=calibration, scale=1 + alpha)
        found += [run, write_report(folder / f"{name}.json", tasks(perplexity, bias, 70 - perplexity), run=run, alpha=alpha)]
    return [*found, write_divergence(folder / "d.json", folder / "fair", by_module={"model.layers.0.mlp.down_proj": {"fdt_mean": 7.5, "sdt_mean": 0.1}})]


@pytest.fixture(scope="module")
def text(inputs, tmp_path_factory):
    return report(tmp_path_factory.mktemp("out") / "report.html", *inputs)


def test_the_page_needs_nothing_else(text):
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    for reference in page.references:
        assert reference.startswith("#") and reference[1:] in page.ids, reference
    assert "http" not in text and "<script" not in text and "<link" not in text and "@import" not in text


def test_its_colours_follow_light_and_dark(text):
    style = re.search(r"<style>(.*?)</style>", text, re.S)[1]
    light, dark = re.search(r":root\{(.*?)\}", style, re.S)[1], re.search(r"prefers-color-scheme:dark\)\{:root\{(.*?)\}", style, re.S)[1]
    defined = [set(re.findall(r"(--\w+):", part)) for part in (light, dark)]
    assert defined[0] == defined[1]
    assert set(re.findall(r"var\((--\w+)\)", text)) <= defined[0]
    body = text[text.index("<body>"):]
    assert not re.findall(r"#0[1-5]0[1-5]\w\w", body)  # the plots' stand-ins for the page's variables
    assert not re.findall(r"(?:fill|stroke): ?#", body)  # every colour is a variable
    assert "width=device-width" in text


def test_every_plot_is_there(text):
    page = Page(text)
    titles = ["GPTQ, 4-bit", "Fair-GPTQ α = 0.1, 4-bit", "Fair-GPTQ α = 0.5, 4-bit"]
    assert page.plots == {
        "trade-off-0": "crows against words", "trade-off-1": "crows against piqa",
        "layers-reconstruction": "Reconstruction error by layer", "layers-bias": "Bias by layer, before and after",
        "layers-bias-left": "Bias left by layer", "modules-bias-left": "Bias left by module",
        "channels-spread": "How few channels carry the bias", **{f"channels-{n}": f"Channels: {title}" for n, title in enumerate(titles)},
        "divergence-0": f"First divergent token: {titles[1]}", "divergence-modules-0": f"Most sensitive modules: {titles[1]}"}
    words = " ".join(page.words)
    assert all(axis in words for axis in ("perplexity (less is better)", "accuracy by length % (more is better)", "mean |Δ| per token (less is better)",
                                          "2 down_proj [3]", "0.mlp.down_proj", "first divergent token", "never"))


def test_no_text_leaves_its_plot(text):
    """As wide as it is in DejaVu Sans, the widest of the page's typefaces."""
    found = re.findall(r'<text style="font-size: ([\d.]+)px; text-anchor: (\w+);[^"]*" x="([\d.]+)" y="([\d.]+)" transform="rotate\((-?\d+) [^"]*">([^<]*)', text)
    assert len(found) > 100 and len(found) == text.count("<text ")
    widths, heights = zip(*re.findall(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" role', text))
    for size, anchor, x, y, angle, words in found:
        length = TextPath((0, 0), html.unescape(words), size=float(size), prop=FontProperties("DejaVu Sans")).get_extents().width
        place, space = (float(x), float(widths[0])) if angle in ("0", "-0") else (float(heights[0]) - float(y), float(heights[0]))
        begin = place - length * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        assert begin > -1 and begin + length < space + 1, words


def test_models_share_no_mark(tmp_path):
    """More models than colours: in the key every point looks otherwise, as every line does."""
    found = [write_report(tmp_path / f"{n}.json", tasks(20 + n, 0.3), run=tmp_path / str(n), alpha=n) for n in range(20)]
    found.append(write_report(tmp_path / "original.json", tasks(5, 0.2)))
    text = report(tmp_path / "out.html", *found)
    marks = re.findall(r'<path d="([^"]*)" style="fill:([^"]*)"/></svg><span>', text)
    assert len(marks) == 21 and len(set(marks)) == 21
    assert re.findall(r"<th>([^<]*)</th>", text)[1] == "original"  # what the others are compared with
    colours = Colours([f"model {n}" for n in range(20)])
    assert len({(colours.of(title), colours.dash(title)) for title in colours.order}) == 20
    assert len({(colours.of(title), colours.shape(title)) for title in colours.order}) == 20
    shapes = {path for path in re.findall(r'<defs>\s*<path id="[^"]*" d="([^"]*)"', page_plot(text, "trade-off-0"))}
    assert len(shapes) >= 4  # disc, square, triangle and the original's diamond (and ticks)


def test_a_wide_range_of_perplexities_is_shown_by_ratio(tmp_path):
    def ticks(largest):
        found = [write_report(tmp_path / f"{n}.json", tasks(value, 0.3), run=tmp_path / str(n), alpha=n) for n, value in enumerate((20, 30, largest))]
        return re.findall(r">([\d.·⁰¹²³⁴⁵⁶⁷⁸⁹]+)</text>", page_plot(report(tmp_path / "out.html", *found), "trade-off-0"))
    assert {"20", "50", "100", "200", "500"} <= set(ticks(700))
    assert {"20", "30", "40"} <= set(ticks(40)) and "2·10⁵" in ticks(500_000)


@pytest.mark.parametrize("value, words", [(1, "1"), (500, "500"), (0.002, "0.002"), (5000, "5000"), (10_000, "10⁴"), (200_000, "2·10⁵"), (5e-7, "5·10⁻⁷")])
def test_numbers_of_a_logarithmic_axis(value, words):
    assert power_of_ten(value) == words


def test_every_figure_is_there_and_the_best_is_marked(text):
    cells = Page(text).cells
    row = next(place for place, cell in enumerate(cells) if cell[1] == "perplexitywords")
    assert cells[row + 1:row + 5] == [[None, "20.00[19.00, 21.00]"], ["best", "24.00[23.00, 25.00]"], [None, "25.00[24.00, 26.00]"], [None, "26.00[25.00, 27.00]"]]
    row = next(place for place, cell in enumerate(cells) if cell[1] == "stereotype preferred\N{NO-BREAK SPACE}%crows")
    assert cells[row + 1:row + 5] == [[None, "53.00"], [None, "53.10"], ["best", "52.50"], [None, "52.70"]]
    values = {cell[1] for cell in cells}
    assert {"0.3000", "0.3100", "0.2500", "0.2700", "45.00", "46.00", "0.1250", "mean |Δ| per tokenrace", "mean |Δ| per tokenage", "25.00 %", "9.25", "10.5"} <= values
    assert FINGERPRINT in values and "pairs|of mine.csv" in values and "f" * 64 in values


def test_the_same_inputs_give_the_same_bytes(inputs, text, tmp_path):
    assert report(tmp_path / "again.html", *inputs) == text


def test_pareto_front():
    assert pareto([(1, 5), (2, 3), (2, 4), (3, 3), (4, 1)]) == [True, True, False, False, True]
    assert pareto([(1, 1), (1, 1)]) == [True, True]
    assert [badness("accuracy", 60), badness("perplexity", 9), badness("ss", 45), badness("bias_ambiguous", -3), badness("unknown", 1)] == [-60, 9, 5, 3, None]


def test_figures_of_other_data_are_set_apart(inputs, tmp_path):
    other = tasks(1, 0.01)
    other["crows"]["data"] = "other"
    extra = write_report(tmp_path / "other.json", other, run="elsewhere", alpha=9)
    page = Page(report(tmp_path / "out.html", *inputs, extra))
    assert "0.0100 *" in {cell[1] for cell in page.cells} and "best" not in {cell[0] for cell in page.cells if cell[1] == "0.0100 *"}
    assert "not comparable" in " ".join(page.words)
    rings = [page_plot(report(tmp_path / f"{n}.html", *found), "trade-off-0").count("markers") for n, found in enumerate((inputs, [*inputs, extra]))]
    assert rings[0] == rings[1]  # it is not among the points


def page_plot(text, name):
    return re.search(rf'<figure id="{name}">(.*?)</figure>', text, re.S)[1].replace("<use", "markers")


def titles(folder, *settings):
    """The titles of reports whose runs differ so."""
    found = [write_report(folder / f"{n}.json", tasks(1, 1), run=folder / run, **more) for n, (run, more) in enumerate(settings)]
    reports, _, _ = read_inputs(found)
    return [report.title for report in reports]


def test_titles_tell_models_apart(tmp_path):
    assert titles(tmp_path, ("a", {}), ("b", {"alpha": 0})) == ["Fair-GPTQ α = 0.1, 4-bit", "GPTQ, 4-bit"]
    both = "H from pairs and text"
    assert titles(tmp_path, ("a", {"bits": 3}), ("b", {"solver": "reference"}), ("c", {"hessian_from": "pairs"}), ("d", {"solver": "new-one"}),
                  ("e", {"alpha": 0, "damp": 1e9, "hessian_from": "text"}), ("f/one", {}), ("g/two", {}), ("h", {"alpha": 0})) == [
        f"Fair-GPTQ α = 0.1, {both}, joint solver, 3-bit", f"Fair-GPTQ α = 0.1, {both}, reference solver, 4-bit",
        "Fair-GPTQ α = 0.1, H from pairs, joint solver, 4-bit", f"New one, {both}, 4-bit", "Round-to-nearest, 4-bit",
        f"Fair-GPTQ α = 0.1, {both}, joint solver, 4-bit (one)", f"Fair-GPTQ α = 0.1, {both}, joint solver, 4-bit (two)", f"GPTQ, {both}, 4-bit"]
    assert titles(tmp_path, ("a", {"pairs": "given"}), ("b", {"pairs": "shuffled"}), ("c", {"alpha_map": [["*", 1]]}), ("d", {"pairs": "unrelated"})) == [
        "Fair-GPTQ α = 0.1, 4-bit", "Fair-GPTQ α = 0.1, 4-bit, shuffled pairs", "Fair-GPTQ, α by map, 4-bit", "Fair-GPTQ α = 0.1, 4-bit, unrelated pairs"]
    assert titles(tmp_path, ("a", {}), ("b", {"ignore": ["o_proj"]}), ("c", {"module_map": [["*", {"bits": 8}]]})) == [
        "Fair-GPTQ α = 0.1, 4-bit", "Fair-GPTQ α = 0.1, 4-bit, some modules ignored", "Fair-GPTQ α = 0.1, 4-bit, grids by map"]


def test_titles_of_runs_in_folders_of_one_name(tmp_path):
    """Jobs keep their runs in work/JOB/run: two names alike would be one column and one colour."""
    assert titles(tmp_path, ("one/run", {}), ("two/run", {}), ("two/run", {})) == [
        "Fair-GPTQ α = 0.1, 4-bit (one/run)", "Fair-GPTQ α = 0.1, 4-bit (two/run)", "Fair-GPTQ α = 0.1, 4-bit (two/run)"]
    originals = [write_report(tmp_path / f"{name}.json", tasks(1, 1), model=f"/{name}/model") for name in ("small", "large")]
    assert [report.title for report in read_inputs(originals)[0]] == ["original (small/model)", "original (large/model)"]
    again = tmp_path / "again.json"
    again.write_bytes(originals[0].read_bytes())
    assert [report.title for report in read_inputs([originals[0], again])[0]] == [f"original ({originals[0].name})", "original (again.json)"]


def test_reports_alone_runs_alone_and_unfinished_runs(inputs, tmp_path):
    assert set(Page(report(tmp_path / "a.html", inputs[0])).plots) == set()
    run = write_run(tmp_path / "run", layers=1, planned=3, alpha=0, scale=0)
    page = Page(report(tmp_path / "b.html", run, "--card", tmp_path / "README.md"))
    assert "layers-bias" in page.plots and "trade-off-0" not in page.plots
    card = (tmp_path / "README.md").read_text()
    assert "Left as they were" not in card and "otherwise" not in card
    mixed = write_run(tmp_path / "mixed", ignore=["o_proj", "k_proj"], module_map=[["*.down_proj", {"bits": 8}], ["*.0.*", {"sym": False}]])
    report(tmp_path / "mixed.html", mixed, "--card", tmp_path / "mixed.md")
    assert "Left as they were: o\\_proj, k\\_proj" in (text := (tmp_path / "mixed.md").read_text()) and "down\\_proj to" in text, text
    assert "Only 1 of its 3 layers" in card and "was not evaluated" in card and "model-index" not in card


def test_a_layer_whose_modules_are_all_ignored_is_finished_all_the_same(tmp_path):
    run = write_run(tmp_path / "run", ignore=["*.layers.0.*"])
    first = run / "layers/layer_0000.h5"
    with h5py.File(first, "r+") as layer:
        layer.attrs["modules"] = "[]"
        for name in MODULES:
            del layer[name]
    report(tmp_path / "out.html", run, "--card", tmp_path / "README.md")
    assert "Only" not in (tmp_path / "README.md").read_text()
    for file in (run / "layers").iterdir():
        if file != first:
            file.unlink()
    assert "no finished layer with quantized modules" in refused(run_tool("report.py", run, "--out", tmp_path / "none.html"))


def test_a_run_without_pairs_has_no_bias_to_show(tmp_path):
    run = write_run(tmp_path / "run", alpha=0)
    for file in (run / "layers").iterdir():
        with h5py.File(file, "r+") as layer:
            for name in MODULES:
                layer[name].attrs.update({"bias_before": 0.0, "bias_after": 0.0})
                layer[name]["column_sensitivity"][()] = 0
    report(tmp_path / "out.html", run, "--card", tmp_path / "README.md")
    assert "of the difference" not in (tmp_path / "README.md").read_text()


def test_hostile_names_are_shown_as_they_are(tmp_path):
    found = tasks(5, 0.5)
    name = "<script>alert('1')</script>\x01&\ud800$x_1$\x00"
    found[name] = {**found.pop("crows"), "by_group": {"<b>": {"mean_abs_difference_per_token": 1.5}}}
    first = write_report(tmp_path / "a.json", found)
    run = write_run(tmp_path / "<i>run", model="/models/<img src=x>|`*", solver="<u>]")
    second = write_report(tmp_path / "b.json", found, run=run, solver="<u>]")
    text = report(tmp_path / "out.html", first, second, run, "--card", tmp_path / "README.md", "--title", "A & <b> \"quoted\"")
    page = Page(text)
    assert {tag for tag, _ in page.elements} & {"script", "b", "i", "u", "img"} == set()
    assert "<script>alert('1')</script>\ufffd&\ufffd$x_1$\ufffd" in "\n".join(page.words)
    card = ModelCard((tmp_path / "README.md").read_text())
    assert card.data.model_name == "A & <b> \"quoted\""
    assert not re.search(r"(?<!\\)<", card.text)  # HTML in Markdown, too


def test_the_hub_reads_the_card(inputs, tmp_path):
    fair = next(path for path in inputs if path.name == "fair")
    report(tmp_path / "out.html", *inputs, "--card", tmp_path / "README.md", "--card-run", fair, "--base-model", "org/Tiny", "--license", "apache-2.0", "--title", "Tiny: fair")
    card = ModelCard((tmp_path / "README.md").read_text(encoding="utf-8"))
    data = card.data.to_dict()
    assert (data["base_model"], data["base_model_relation"], data["license"], data["pipeline_tag"]) == ("org/Tiny", "quantized", "apache-2.0", "text-generation")
    assert set(data["tags"]) == {"fairgptq", "gptq", "fair-gptq", "fairness", "4-bit"}
    settings = json.loads((fair / "run.json").read_text())
    settings["settings"]["model"]["architecture"] = "Gemma3ForConditionalGeneration"
    (tmp_path / "sees").mkdir()
    sees = shutil.copytree(fair, tmp_path / "sees" / "fair")
    (sees / "run.json").write_text(json.dumps(settings))
    report(tmp_path / "sees.html", sees, "--card", tmp_path / "sees.md")
    assert ModelCard((tmp_path / "sees.md").read_text(encoding="utf-8")).data.to_dict()["pipeline_tag"] == "image-text-to-text"
    results = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert results == {("words", "perplexity"): 25, ("crows", "stereotype_preferred"): 52.5, ("crows", "mean_abs_difference"): 2.25,
                       ("crows", "mean_abs_difference_per_token"): 0.25, ("piqa", "accuracy"): 45, ("piqa", "accuracy_norm"): 46}
    text = card.text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Tiny: fair", "## What it is", "## Results", "## Data", "## Settings", "## Fingerprint", "## Limits"]
    assert "| words | perplexity | 20.00 \\[19.00, 21.00\\] | 25.00 \\[24.00, 26.00\\] |" in text
    assert "44.0 % of the difference" in text  # 40 · 1.1 of 100
    assert FINGERPRINT in text and "pairs\\|of mine.csv" in text and "f" * 64 in text and "| alpha | 0.1 |" in text


def test_data_of_another_token_file_are_not_claimed(tmp_path):
    calibration = {**write_calibration(tmp_path / "tokens.h5"), "digest": "another"}
    report(tmp_path / "out.html", write_run(tmp_path / "run", calibration=calibration), "--card", tmp_path / "README.md")
    card = (tmp_path / "README.md").read_text()
    assert "holds other data now" in card and "pairs of mine" not in card


def changed(path, value):
    """Writes a report with one thing changed: value is {dotted name: new value}."""
    write_report(path, tasks(5, 0.5), run="r")
    whole = json.loads(path.read_text())
    for name, new in value.items():
        *outer, last = name.split(".")
        place = whole
        for key in outer:
            place = place[key]
        place[last] = new
    path.write_text(json.dumps(whole))
    return path


@pytest.mark.parametrize("change, sentence", [
    ({"format": "other"}, "neither a report of fairgptq eval nor of fairgptq diverge"),
    ({"version": 2}, "is of version 2"),
    ({"model": 3}, 'lacks a text "model"'),
    ({"tasks": []}, 'or an object "tasks"'),
    ({"settings": None}, 'nor are both null'),
    ({"settings.alpha": "high"}, 'lack a number "alpha"'),
    ({"settings.bits": 4.5}, 'whole number "bits"'),
    ({"settings.solver": []}, '"solver" is not a text'),
    ({"tasks.words.kind": None}, 'lacks its "kind"'),
    ({"tasks.words.perplexity": float("nan")}, '"perplexity" is not a finite number'),
    ({"tasks.words.perplexity": 10 ** 400}, '"perplexity" is not a finite number'),
    ({"tasks.words.intervals": {"perplexity": [2, 1]}}, "an interval is not a lower and an upper number"),
    ({"tasks.words.intervals": {"perplexity": 3}}, "not a list of numbers"),
    ({"tasks.crows.by_group": [1]}, '"by_group"'),
])
def test_reports_that_are_none_are_refused(tmp_path, change, sentence):
    path = changed(tmp_path / "a.json", change)
    assert sentence in refused(run_tool("report.py", path, "--out", tmp_path / "out.html"))
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("change, sentence", [
    ({"continuation_tokens": 0}, '"continuation_tokens"'),
    ({"prompts": 3}, "a number for each of its"),
    ({"first_divergent_token": [0, 1, 2, 17]}, "from 0 to 16"),
    ({"first_divergent_token": [0, 1, 2, 2.5]}, "whole number"),
    ({"divergent_share": [0, 1, 2, 0]}, "share not from 0 to 1"),
    ({"by_module": {"a": {"fdt_mean": 1}}}, '"sdt_mean" is not a finite number'),
])
def test_divergences_that_are_none_are_refused(tmp_path, change, sentence):
    path = write_divergence(tmp_path / "d.json", "x", **change)
    assert sentence in refused(run_tool("report.py", path, "--out", tmp_path / "out.html"))


def break_layer(run, how):
    with h5py.File(run / "layers" / "layer_0001.h5", "r+") as file:
        how(file)


@pytest.mark.parametrize("damage, sentence", [
    (lambda run: (run / "run.json").unlink(), "run.json does not exist"),
    (lambda run: (run / "run.json").write_text("{}"), "is not the run.json of a fairgptq run"),
    (lambda run: (run / "layers" / "layer_0001.h5").write_bytes(b"\x89HDF"), "layer_0001.h5 is not a whole layer file"),
    (lambda run: break_layer(run, lambda file: file.attrs.modify("fingerprint", "other")), "belongs to another run"),
    (lambda run: break_layer(run, lambda file: file.pop("mlp.down_proj")), "is not a whole layer file"),
    (lambda run: break_layer(run, lambda file: file["mlp.down_proj"].attrs.modify("bias_after", float("inf"))), "are not finite numbers"),
    (lambda run: [file.unlink() for file in (run / "layers").iterdir()], "has no finished layer"),
])
def test_damaged_runs_are_refused(tmp_path, damage, sentence):
    run = write_run(tmp_path / "run")
    damage(run)
    assert sentence in refused(run_tool("report.py", run, "--out", tmp_path / "out.html"))


@pytest.mark.parametrize("arguments, sentence", [
    (["{run}", "{run}"], "is named twice"),
    (["{run}/nothing.json"], "nothing.json does not exist"),
    (["{run}", "--card-run", "{run}"], "--card-run is for a model card"),
    (["{run}", "--license", "mit"], "--license is for a model card"),
    (["{run}", "{other}", "--card", "{out}.md"], "--card is for one run, and 2 are given"),
    (["{run}", "--card", "{out}.md", "--card-run", "{other}"], "none of the RUN folders"),
    (["{report}", "--card", "{out}.md"], "--card needs a RUN folder"),
    (["{run}", "--card", "{run}"], "--card"),
    ([], "required: INPUT"),
])
def test_wrong_usage_is_refused(tmp_path, arguments, sentence):
    names = {"run": write_run(tmp_path / "run"), "other": write_run(tmp_path / "other"), "report": write_report(tmp_path / "a.json", tasks(1, 1)),
             "out": tmp_path / "out"}
    before = sorted(tmp_path.iterdir())
    assert sentence in refused(run_tool("report.py", *(argument.format(**names) for argument in arguments), "--out", tmp_path / "out.html"))
    assert sorted(tmp_path.iterdir()) == before
    if arguments:
        assert "--out" in refused(run_tool("report.py", names["run"], "--out", tmp_path / "nowhere" / "out.html"))
