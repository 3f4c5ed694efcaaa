"""The model card of one run: what it is, its data, settings, fingerprint, results and limits.

It is written once as blocks, and these as Markdown with the YAML header that Hugging Face reads, or as HTML for the report.
A block is ("text", words), ("list", [words]), or ("table", heading cells, rows of cells).
"""
import html
import json
from pathlib import Path

from figures import COUNTS, comparable, figure_of, rows_of_tasks, written
from report_inputs import calibration_sources

LIMITS = [
    "Bias is measured on the benchmarks above and on nothing else: groups, languages and forms of harm that they leave out may have gained or lost.",
    "What counts as a stereotype was decided by whoever wrote the calibration pairs; bias that they do not show was not taken out.",
    "Mean |Δ| is the mean absolute difference between the log-probabilities of the two sentences of a pair. It says how differently a model treats them, "
    "not which it prefers.",
    "A difference of figures that is smaller than their intervals may be chance: fairgptq compare says which are significant.",
    "It is as unfit for a purpose as the model it was made from; quantization does not make an unsafe model safe.",
]


def card_of(run, reports):
    """@param reports  all reports; those of this run and of its original model are shown
    @returns [(heading, [block])]"""
    own = [report for report in reports if report.run and Path(report.run).resolve() == run.path.resolve()]
    originals = [report for report in reports if report.settings is None and Path(report.model).resolve() == Path(run.model.get("path", "")).resolve()]
    return [("What it is", _description(run)), ("Results", _results(originals + own, own)), ("Data", _data(run)),
            ("Settings", [("table", ["setting", "value"], [[key, _plain(value)] for key, value in sorted(run.settings.items())])]),
            ("Fingerprint", _fingerprint(run)), ("Limits", [("list", LIMITS)])]


def name_of(run):
    """The original model's folder name."""
    return Path(run.model.get("path", "model")).name


def markdown(run, sections, reports, options):
    """README.md. @param options  title, base_model, license: texts or None"""
    title = options.title or f"{name_of(run)}, {run.title}"
    lines = [_header(run, reports, title, options), f"# {_markdown(title)}", ""]
    for heading, blocks in sections:
        lines += [f"## {heading}", ""]
        for block in blocks:
            lines += [*_markdown_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def as_html(sections):
    return "".join(f"<h3>{html.escape(heading)}</h3>" + "".join(map(_html_block, blocks)) for heading, blocks in sections)


def _description(run):
    settings = run.settings
    method = "GPTQ (arXiv 2210.17323)" if not settings["alpha"] and not settings.get("alpha_map") else "Fair-GPTQ (arXiv 2509.15206)"
    words = (f"{name_of(run)} ({run.model.get('architecture', 'unknown architecture')}), its linear layers quantized to {settings['bits']} bits with {method} "
             "by fairgptq.")
    before, after = (sum(module.numbers[key] for module in run.modules) for key in ("bias_before", "bias_after"))
    if settings.get("ignore"):
        words += f" Left as they were: {', '.join(map(_plain, settings['ignore']))}."
    if settings.get("module_map"):
        words += " Some are quantized otherwise: " + "; ".join(f"{_plain(pattern)} to {_plain(fields)}" for pattern, fields in settings["module_map"]) + "."
    blocks = [("text", words)]
    if before > 0:
        blocks.append(("text", f"On the calibration pairs, {100 * after / before:.1f} % of the difference that its layers make between the two "
                               "sentences of a pair is left (tr(QCQᵀ) of tr(WCWᵀ), summed over all layers)."))
    whole = run.model.get("layers", run.layers)
    if run.finished < whole:
        blocks.append(("text", f"Only {run.finished} of its {whole} layers are quantized."))
    return blocks


def _results(reports, own):
    if not own:
        return [("text", "This run was not evaluated.")]
    rows = []
    for task, _, figure in rows_of_tasks(own):
        cells = []
        for report in reports:
            found = report.tasks.get(task) if report in comparable(reports, task) else None
            cells.append(with_interval(found, figure) if found and figure in found.figures else "–")
        rows.append([task, figure_of(figure).label, *cells])
    blocks = [("table", ["data", "figure", *(report.title for report in reports)], rows)]
    if any(task.intervals for report in own for task in report.tasks.values()):
        blocks.append(("text", "In brackets: 95 % intervals of a bootstrap over items."))
    return blocks


def with_interval(task, figure):
    """A figure, and in brackets its interval, where there is one."""
    text = written(figure, task.figures[figure])
    if figure in task.intervals:
        text += " [{}, {}]".format(*(written(figure, bound) for bound in task.intervals[figure]))
    return text


def _data(run):
    sources = calibration_sources(run)
    blocks = [("text", f"Calibration data have the digest {run.calibration.get('digest', 'unknown')}.")]
    if sources:
        rows = []
        for source in sources:
            counts = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in sorted(source.items())
                               if key not in ("name", "file", "sha256", "seed") and isinstance(value, int))
            rows.append([_plain(source.get("name")), _plain(source.get("file")), counts, _plain(source.get("sha256"))])
        blocks.append(("text", "The token file was made from:"))
        blocks.append(("table", ["source", "file", "counts", "SHA-256"], rows))
    else:
        blocks.append(("text", "The token file is no longer where it was, or holds other data now: what it was made from is not known here."))
    return blocks


def _fingerprint(run):
    files = run.model.get("files") if isinstance(run.model.get("files"), list) else []
    rows = [["run", run.fingerprint], ["model's weights", run.weights_hash or "not recorded"],
            ["model's config.json", _plain(run.model.get("config_hash", "not recorded"))], ["weight files", str(len(files))]]
    return [("table", ["of", "fingerprint"], rows)]


def _header(run, reports, title, options):
    """The YAML between the dashes; strings are written as JSON, which YAML includes."""
    lines = ["---"]
    if options.base_model:
        lines += [f"base_model: {_quoted(options.base_model)}", "base_model_relation: quantized"]
    if options.license:
        lines.append(f"license: {_quoted(options.license)}")
    pictures = str(run.model.get("architecture", "")).endswith("ForConditionalGeneration")
    lines += [f"pipeline_tag: {'image-text-to-text' if pictures else 'text-generation'}", "tags:", "- fairgptq", "- gptq", f"- {_quoted(str(run.settings['bits']) + '-bit')}"]
    if run.settings["alpha"] or run.settings.get("alpha_map"):
        lines += ["- fair-gptq", "- fairness"]
    own = next((report for report in reports if report.run and Path(report.run).resolve() == run.path.resolve()), None)
    if own and any(figure not in COUNTS for task in own.tasks.values() for figure in task.figures):
        lines += ["model-index:", f"- name: {_quoted(title)}", "  results:"]
        for name, task in own.tasks.items():
            metrics = [(figure, value) for figure, value in task.figures.items() if figure not in COUNTS]
            if metrics:
                lines += ["  - task:", "      type: text-generation", "    dataset:", f"      name: {_quoted(name)}", f"      type: {_quoted(name)}", "    metrics:"]
                for figure, value in metrics:
                    lines += [f"    - type: {_quoted(figure)}", f"      name: {_quoted(figure_of(figure).label)}", f"      value: {round(value, 6)!r}"]
    return "\n".join([*lines, "---", ""])


def _quoted(value):
    return json.dumps(value, ensure_ascii=False)


def _plain(value):
    return value if isinstance(value, str) else _quoted(value)


def _markdown(text):
    """Text that Markdown shows as it is."""
    return "".join("\\" + letter if letter in "\\`*_{}[]<>#|" else " " if letter in "\r\n" else letter for letter in text)


def _markdown_block(block):
    if block[0] == "text":
        return [_markdown(block[1])]
    if block[0] == "list":
        return [f"- {_markdown(words)}" for words in block[1]]
    return markdown_table(*block[1:])


def markdown_table(heading, rows):
    """Lines of a table. @param heading, rows  cells of plain text"""
    return ["| " + " | ".join(map(_markdown, cells)) + " |" for cells in (heading, ["---"] * len(heading), *rows)]


def _html_block(block):
    if block[0] == "text":
        return f"<p>{html.escape(block[1])}</p>"
    if block[0] == "list":
        return "<ul>" + "".join(f"<li>{html.escape(words)}</li>" for words in block[1]) + "</ul>"
    _, heading, rows = block
    return table(heading, [[_html_cell(cell) for cell in row] for row in rows])


def _html_cell(cell):
    text = html.escape(cell)
    if len(cell) > 30:  # a hash may be broken anywhere; words need some room
        return (text, "long") if " " in cell else f"<code>{text}</code>"
    value, bracket, interval = text.partition(" [")
    return f"{value}<small>[{interval}</small>" if bracket else text


def table(heading, rows):
    """An HTML table that scrolls by itself where it is too wide. @param rows  cells of HTML, or (HTML, class)"""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell):
    return f"<td>{cell}</td>" if isinstance(cell, str) else f'<td class="{cell[1]}">{cell[0]}</td>'
