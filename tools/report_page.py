"""A report as one HTML page that needs nothing beside itself."""
import html
from pathlib import Path

from figures import COUNTS, badness, comparable, figure_of, rows_of_tasks, written
from model_card import as_html, card_of, name_of, table, with_interval
from report_plots import SERIES, Colours, channels, divergence, per_layer, top_channels, trade_offs

STYLE = """
:root{color-scheme:light dark;--paper:#fdfdfc;--ink:#1b1f24;--muted:#667085;--grid:#e4e6ea;--card:#ffffff;--best:#e7f4ec;
--series0:#0067b1;--series1:#c8500a;--series2:#00875f;--series3:#b0448a;--series4:#6a51c7;--series5:#8f6a00;--series6:#00808f;--series7:#b3323f}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--muted:#98a2b3;--grid:#2c323a;--card:#1b2026;--best:#1d3a2b;
--series0:#62b3f5;--series1:#ff9a57;--series2:#48cfa0;--series3:#f09bd0;--series4:#b5a3ff;--series5:#e2bd4c;--series6:#4fcfdd;--series7:#ff8b92}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:1.2rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.4rem 0}h2{font-size:1.2rem;margin:2.4rem 0 .4rem}h3{font-size:1rem;margin:1.4rem 0 .3rem}
p{margin:.4rem 0;max-width:75ch}.note{color:var(--muted);font-size:.9rem}
.plots{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));margin:.8rem 0}
figure{margin:0;background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:.5rem}
figcaption{font-weight:600;font-size:.88rem;padding:.1rem .3rem .4rem}
figure svg{display:block;width:100%;height:auto;font-family:inherit}
.key{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;list-style:none;padding:0;margin:.6rem 0;font-size:.9rem;line-height:1.3}
.key li{display:flex;align-items:baseline}.key svg{flex:none;width:1.9em;height:.8em;margin-right:.4em}
.wide{overflow-x:auto;margin:.8rem 0;border:1px solid var(--grid);border-radius:8px;background:var(--card)}
table{border-collapse:collapse;font-size:.88rem;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid var(--grid);vertical-align:top}
thead th{font-weight:600;color:var(--muted);vertical-align:bottom}tbody tr:last-child td{border-bottom:0}
td.best{background:var(--best);font-weight:600}td small{color:var(--muted);font-weight:400;white-space:nowrap;display:block}
details{border:1px solid var(--grid);border-radius:8px;background:var(--card);padding:.5rem .9rem;margin:.7rem 0}
details .wide{background:none}summary{cursor:pointer;font-weight:600}td{min-width:5.5em}td.long{min-width:15em}
th:first-child,td:first-child{position:sticky;left:0;background:var(--card);min-width:7.5em}code{font-size:.95em;overflow-wrap:anywhere;display:inline-block;min-width:17em}
"""


def page(reports, runs, divergences, options, subject):
    """@param subject  the run whose card stands open, or None. @returns HTML"""
    reports = sorted(reports, key=lambda report: report.settings is not None)  # what the others are compared with stands first
    # Runs and divergences have plots of their own, where a colour says more than a dash: the first colours are theirs.
    colours = Colours([thing.title for thing in (*runs, *divergences, *reports)])
    title = options.title or "Fair-GPTQ: " + ", ".join(dict.fromkeys(
        [name_of(run) for run in runs] or [Path(report.model).name for report in reports] or ["divergence"]))
    parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="note">{html.escape(_counts(reports, runs, divergences))}</p>']
    if reports:
        plots = trade_offs(reports, colours)
        if plots:
            parts.append(_section("Bias against ability", "A point is a model; a diamond the original. Ringed and joined by dots: the Pareto front, models that "
                                  "none is better than in both. Thin lines join models that differ in α alone, by rising α; thin crosses are 95 % intervals.",
                                  plots, colours, [report.title for report in reports], points=True))
        parts.append(_all_figures(reports))
    if runs:
        titles = [run.title for run in runs]
        parts.append(_section("Layers", "What each layer lost and what bias it kept, on the calibration data: the reconstruction error tr((W−Q)H(W−Q)ᵀ), and the "
                              "bias tr(QCQᵀ) of what it was, tr(WCWᵀ); sums over a layer's modules.", per_layer(runs, colours), colours, titles))
        parts.append(_section("Channels", "The input channels that carry most bias: C_jj times the error of column j, largest first; a bar says layer, module and "
                              "[channel].", channels(runs, colours), colours, titles))
        parts.append(_channel_tables(runs))
    if divergences:
        parts.append(_section("Divergence", "Where a model's greedy continuation first leaves the original's (later is better); by module: "
                              "where it does with this module alone quantized.", divergence(divergences, colours),
                              colours, [one.title for one in divergences]))
        parts.append(_divergence_table(divergences))
    if runs:
        parts.append("<h2>Model cards</h2>")
        for run in runs:
            opened = " open" if run is subject or len(runs) == 1 else ""
            parts.append(f"<details{opened}><summary>{html.escape(run.title)}</summary>{as_html(card_of(run, reports))}</details>")
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n")


def _counts(reports, runs, divergences):
    words = [(len(reports), "evaluated model"), (len(runs), "run"), (len(divergences), "divergence measurement")]
    return ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in words if count)


def _section(heading, text, plots, colours, titles, points=False):
    """@param points  whether the plots show models as points, not as lines or bars"""
    figures = "".join(f'<figure id="{html.escape(name)}"><figcaption>{html.escape(title)}</figcaption>{svg}</figure>'
                      for name, title, svg in plots)
    return f'<h2>{heading}</h2><p class="note">{html.escape(text)}</p>{_key(colours, titles, points)}<div class="plots">{figures}</div>'


# A point of each of SHAPES and the original's diamond, as a path in a box of 28 × 12.
POINTS = {"o": "M9 6a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "s": "M9.5 1.5h9v9h-9z", "^": "M14 .5L19.5 11h-11z", "v": "M14 11.5L19.5 1h-11z", "D": "M14 0l6 6l-6 6l-6-6z"}


def _key(colours, titles, points):
    entries = []
    for title in dict.fromkeys(titles):
        place = colours.order.index(title) if title in colours.order else None
        colour = "var(--ink)" if place is None else f"var(--series{place % SERIES})"
        dash = {"-": "none", "--": "6 4", ":": "2 3", "-.": "6 3 2 3"}[colours.dash(title)]
        mark = (f'<path d="{POINTS[colours.shape(title)]}" style="fill:{colour}"/>' if points else
                f'<path d="M0 6H28" style="stroke:{colour};stroke-width:4;stroke-dasharray:{dash}"/>')
        entries.append(f'<li><svg viewBox="0 0 28 12" aria-hidden="true">{mark}</svg><span>{html.escape(title)}</span></li>')
    return f'<ul class="key">{"".join(entries)}</ul>'


def _all_figures(reports):
    rows, other_data = [], False
    for task, _, figure in rows_of_tasks(reports):
        same = comparable(reports, task)
        quantized = [report for report in same if report.settings is not None and figure in report.tasks[task].figures]
        marks = {id(report): badness(figure, report.tasks[task].figures[figure]) for report in quantized}
        best = min((mark for mark in marks.values() if mark is not None), default=None) if len(quantized) > 1 else None
        cells = []
        for report in reports:
            if task not in report.tasks or figure not in report.tasks[task].figures:
                cells.append("–")
                continue
            value, *rest = with_interval(report.tasks[task], figure).split(" ", 1)
            other_data |= report not in same
            text = html.escape(value) + ("" if report in same else " *") + "".join(f"<small>{html.escape(part)}</small>" for part in rest)
            cells.append((text, "best") if best is not None and marks.get(id(report)) == best else text)
        rows.append([_figure_cell(task, figure), *cells])
    text = table(["figure", *(report.title for report in reports)], rows)
    note = "Marked: the best of the quantized models." + (" In small type: 95 % intervals of a bootstrap over items." if any(
        task.intervals for report in reports for task in report.tasks.values()) else "") + (
        " * measured on other sequences than the rest, and so not comparable." if other_data else "")
    return f'<h2>All figures</h2><p class="note">{note}</p>{text}{_group_tables(reports)}'


def _figure_cell(data, figure):
    """What a row shows, in one cell: it stays in sight where the table scrolls."""
    label = figure_of(figure).label.replace(" %", "\N{NO-BREAK SPACE}%")
    return f"{html.escape(label)}<small>{html.escape(data)}</small>"


def _group_tables(reports):
    """By group, folded: one table for each task that has groups."""
    parts = []
    for task in dict.fromkeys(name for report in reports for name, one in report.tasks.items() if one.groups):
        same = [report for report in comparable(reports, task) if report.tasks[task].groups]
        rows, every = [], [group for report in same for group in report.tasks[task].groups.items()]
        for group in dict.fromkeys(name for name, _ in every):
            for figure in dict.fromkeys(name for _, figures in every for name in figures if name not in COUNTS):
                values = [report.tasks[task].groups.get(group, {}).get(figure) for report in same]
                rows.append([_figure_cell(group, figure), *("–" if value is None else written(figure, value) for value in values)])
        parts.append(f"<details><summary>{html.escape(task)}, by group</summary>{table(['figure', *(report.title for report in same)], rows)}</details>")
    return "".join(parts)


def _channel_tables(runs):
    parts = []
    for run in runs:
        rows = [[str(layer), html.escape(name), str(channel), f"{value:.4g}"] for layer, name, channel, value in top_channels(run, 20)]
        parts.append(f"<details><summary>{html.escape(run.title)}: the 20 largest channels</summary>{table(['layer', 'module', 'channel', 'sensitivity'], rows)}</details>")
    return "".join(parts)


def _divergence_table(divergences):
    rows = []
    for one in divergences:
        never = sum(first == one.tokens for first in one.first)
        ordered = sorted(one.first)
        median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        rows.append([html.escape(one.title), str(len(one.first)), str(one.tokens), f"{sum(one.first) / len(one.first):.2f}", f"{median:g}",
                     f"{100 * sum(one.share) / len(one.share):.2f} %", str(never)])
    return table(["model", "prompts", "tokens each", "mean FDT", "median FDT", "mean SDT", "never diverge"], rows)
