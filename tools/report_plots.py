"""A report's plots as inline SVG, whose colours are the page's variables, so that they follow light and dark.

Plots are small enough to be read at a phone's width; on wide screens several stand side by side.
"""
import hashlib
import io
import re
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from figures import ABILITY, BIAS, badness, comparable, figure_of, pareto

SIZE = (4.6, 3.3)  # inches of 72 points: about a phone's width
SERIES = 8  # colours of the page; further series begin anew with other dashes and shapes
DASHES = ("-", "--", ":", "-.")
SHAPES = ("o", "s", "^", "v")
# Colours that stand for the page's variables until the SVG is written.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
COLOURS = [f"#0505{index:02x}" for index in range(SERIES)]
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", **{colour: f"--series{index}" for index, colour in enumerate(COLOURS)}}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "fairgptq", "text.parse_math": False, "font.size": 10, "axes.titlesize": 10,
         "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False,
         "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
         "axes.edgecolor": MUTED, "grid.color": GRID, "axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.8, "legend.frameon": False,
         "legend.fontsize": 8, "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "xtick.labelsize": 9,
         "ytick.labelsize": 9}


class Colours:
    """A colour, a dash and a point's shape for every model, the same in all plots; the original has the ink's."""

    def __init__(self, titles):
        self.order = [title for title in dict.fromkeys(titles) if not title.startswith("original")]

    def of(self, title):
        return COLOURS[self.order.index(title) % SERIES] if title in self.order else INK

    def dash(self, title):
        return self._of_round(title, DASHES, "-")

    def shape(self, title):
        return self._of_round(title, SHAPES, "D")

    def _of_round(self, title, choices, of_original):
        return choices[self.order.index(title) // SERIES % len(choices)] if title in self.order else of_original


@dataclass(frozen=True)
class Value:
    """A model's figure on one axis, with its interval where there is one."""

    value: float
    interval: tuple


@dataclass(frozen=True)
class Axis:
    """What one axis of a trade-off shows: a figure of a task, or its mean over several tasks."""

    name: str
    figure: str
    tasks: tuple

    def of(self, report):
        """The report's Value, or None."""
        tasks = [report.tasks.get(task) for task in self.tasks]
        if not all(task and self.figure in task.figures for task in tasks):
            return None
        return Value(float(np.mean([task.figures[self.figure] for task in tasks])),
                     tasks[0].intervals.get(self.figure, ()) if len(tasks) == 1 else ())

    @property
    def label(self):
        best = figure_of(self.figure).best
        better = {"low": "less is better", "high": "more is better"}.get(best, f"{best} is best")
        return f"{figure_of(self.figure).label} ({better})"


def axes_of(reports, figures, joined):
    """An Axis for each task whose kind has a figure here; of the kinds in `joined` one for all tasks that every report has."""
    kinds = {name: task.kind for report in reports for name, task in report.tasks.items() if task.kind in figures}
    found = [Axis(name, figures[kind], (name,)) for name, kind in kinds.items() if kind not in joined]
    for kind in joined:
        tasks = tuple(name for name in kinds if kinds[name] == kind and len(comparable(reports, name)) == len(reports))
        if tasks:
            found.append(Axis(tasks[0] if len(tasks) == 1 else f"mean of {len(tasks)} tasks", figures[kind], tasks))
    return found


def trade_offs(reports, colours):
    """[(name, title, svg)] of each bias figure against each kind of ability."""
    plots = []
    for y_axis in axes_of(reports, BIAS, ()):
        for x_axis in axes_of(reports, ABILITY, ("multiple_choice",)):
            shown = [report for report in reports if all(report in comparable(reports, task) for task in (*x_axis.tasks, *y_axis.tasks))]
            points = [(report, x_axis.of(report), y_axis.of(report)) for report in shown]
            points = [point for point in points if None not in point]
            if len(points) > 1:
                title = f"{y_axis.name} against {x_axis.name}"
                plots.append((f"trade-off-{len(plots)}", title, draw(trade_off, title, points, x_axis, y_axis, colours)))
    return plots


def trade_off(axes, points, x_axis, y_axis, colours):
    """One point for each model, those of the Pareto front ringed and joined, those that differ in α alone joined thinly."""
    places = {id(report): (x.value, y.value) for report, x, y in points}
    front = pareto([(badness(x_axis.figure, x), badness(y_axis.figure, y)) for x, y in places.values()])
    for (report, x, y), best in zip(points, front):
        colour = colours.of(report.title)
        if x.interval:
            axes.plot(x.interval, [y.value] * 2, color=colour, linewidth=0.8, alpha=0.45)
        if y.interval:
            axes.plot([x.value] * 2, y.interval, color=colour, linewidth=0.8, alpha=0.45)
        axes.plot([x.value], [y.value], marker=colours.shape(report.title), markersize=6, color=colour, linestyle="none")
        if best:
            axes.plot([x.value], [y.value], marker="o", markersize=12, markerfacecolor="none", markeredgecolor=INK, linestyle="none")
    on_front = sorted(place for place, best in zip(places.values(), front) if best)
    axes.plot([x for x, _ in on_front], [y for _, y in on_front], color=INK, linewidth=1, linestyle=":", zorder=1)
    for family in families([report for report, _, _ in points]):
        axes.plot(*zip(*(places[id(report)] for report in family)), color=MUTED, linewidth=0.8, zorder=0)
    axes.margins(0.12)
    if x_axis.figure == "perplexity" and max(x for x, _ in places.values()) > 3 * min(x for x, _ in places.values()):
        log_scale(axes, "x", steps=(1, 2, 5))  # else one model that lost its language leaves no room for the others
    axes.set_xlabel(x_axis.label)
    axes.set_ylabel(y_axis.label)


def families(reports):
    """Reports of runs that differ in α alone, by rising α."""
    found = {}
    for report in reports:
        if report.settings is not None:
            rest = sorted((key, str(value)) for key, value in report.settings.items() if key != "alpha")
            found.setdefault(tuple(rest), []).append(report)
    return [sorted(family, key=lambda report: report.settings["alpha"]) for family in found.values() if len(family) > 1]


def line(axes, colours, title, x, y):
    """A model's line; a point where that is all there is."""
    axes.plot(x, y, color=colours.of(title), linestyle=colours.dash(title), linewidth=1.5, marker="o" if len(x) == 1 else None)


def per_layer(runs, colours):
    """[(name, title, svg)]: reconstruction error, and bias before and after, by layer."""
    def reconstruction(axes):
        for run in runs:
            line(axes, colours, run.title, *sums_by_layer(run, "reconstruction"))
        layer_axis(axes)
        if all((sums_by_layer(run, "reconstruction")[1] > 0).any() for run in runs):
            log_scale(axes, "y")
        axes.set_ylabel("tr((W−Q)H(W−Q)ᵀ)")

    def bias(axes):
        for run in runs:
            axes.plot(*sums_by_layer(run, "bias_before"), color=colours.of(run.title), linewidth=0.9, linestyle=(0, (1, 2)))
            line(axes, colours, run.title, *sums_by_layer(run, "bias_after"))
        layer_axis(axes)
        if any((sums_by_layer(run, "bias_after")[1] > 0).any() for run in runs):
            log_scale(axes, "y")
        axes.set_ylabel("tr(QCQᵀ); dotted: tr(WCWᵀ) before")

    def left(axes):
        for run in runs:
            layers, before = sums_by_layer(run, "bias_before")
            if (before > 0).all():
                line(axes, colours, run.title, layers, 100 * sums_by_layer(run, "bias_after")[1] / before)
        axes.axhline(100, color=MUTED, linewidth=0.8)
        layer_axis(axes)
        axes.set_ylabel("% of the bias before")

    def by_module(axes):
        names = list(dict.fromkeys(kind_of(module.name) for run in runs for module in run.modules))
        height = 0.8 / len(runs)
        for place, run in enumerate(runs):
            shares = []
            for name in names:
                before, after = (sum(module.numbers[key] for module in run.modules if kind_of(module.name) == name) for key in ("bias_before", "bias_after"))
                shares.append(100 * after / before if before > 0 else 0)
            axes.barh(np.arange(len(names)) + (place - (len(runs) - 1) / 2) * height, shares, height, color=colours.of(run.title))
        axes.axvline(100, color=MUTED, linewidth=0.8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel("% of the bias before, all layers", loc="right")

    return [("layers-reconstruction", "Reconstruction error by layer", draw(reconstruction, "Reconstruction error by layer")),
            ("layers-bias", "Bias by layer, before and after", draw(bias, "Bias by layer, before and after")),
            ("layers-bias-left", "Bias left by layer", draw(left, "Bias left by layer")),
            ("modules-bias-left", "Bias left by module", draw(by_module, "Bias left by module"))]


def short(name):
    """down_proj of mlp.down_proj, experts.3.down_proj of mlp.experts.3.down_proj."""
    return re.search(r"(experts\.\d+\.|shared_experts?\.)?[^.]+$", name)[0]


def kind_of(name):
    """What a module is called where experts are not told apart: mlp.experts.*.gate_proj."""
    return re.sub(r"\.experts\.\d+\.", ".experts.*.", name)


def sums_by_layer(run, figure):
    """(layers, sum of a figure over each layer's modules)"""
    layers = sorted({module.layer for module in run.modules})
    return np.array(layers), np.array([sum(module.numbers[figure] for module in run.modules if module.layer == layer) for layer in layers])


def channels(runs, colours, count=12):
    """[(name, title, svg)]: how bias is spread over input channels, and each run's channels that carry most of it."""
    def spread(axes):
        for run in runs:
            values = np.sort(np.concatenate([module.sensitivity for module in run.modules]).astype(float))[::-1]
            total = values.sum()
            if total > 0:
                at = np.unique(np.geomspace(1, len(values), 200).astype(int))
                line(axes, colours, run.title, 100 * at / len(values), 100 * np.cumsum(values)[at - 1] / total)
        log_scale(axes, "x")
        axes.set_ylim(0, 102)
        axes.set_xlabel("% of all input channels, the largest first (log scale)")
        axes.set_ylabel("% of all column sensitivity")

    def largest(axes, run):
        top = top_channels(run, count)
        axes.barh(range(len(top)), [value for *_, value in top], color=colours.of(run.title))
        axes.set_yticks(range(len(top)), [f"{layer} {short(name)} [{channel}]" for layer, name, channel, _ in top])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("column sensitivity: C_jj · ‖error of column j‖", loc="right")  # longer than the axis beside long names

    plots = [("channels-spread", "How few channels carry the bias", draw(spread, "How few channels carry the bias"))]
    for number, run in enumerate(runs):
        plots.append((f"channels-{number}", f"Channels of {run.title}", draw(largest, f"Channels: {run.title}", run)))
    return plots


def top_channels(run, count):
    """[(layer, module, channel, sensitivity)], the largest first."""
    found = []
    for module in run.modules:
        for channel in np.argsort(module.sensitivity)[::-1][:count]:
            found.append((module.layer, module.name, int(channel), float(module.sensitivity[channel])))
    return sorted(found, key=lambda one: -one[3])[:count]


def divergence(divergences, colours):
    """[(name, title, svg)]: a histogram of first divergent tokens for each model, and the modules that move them most."""
    def histogram(axes, one):
        edges = np.linspace(0, one.tokens, min(one.tokens, 20) + 1)
        diverged = [first for first in one.first if first < one.tokens]
        axes.hist(diverged, bins=edges, color=colours.of(one.title))
        never = len(one.first) - len(diverged)
        step = edges[1] - edges[0]
        axes.bar(one.tokens + 1.5 * step, never, step, color=MUTED)
        axes.set_xticks([*np.linspace(0, one.tokens, 5).astype(int), one.tokens + 1.5 * step], [*np.linspace(0, one.tokens, 5).astype(int), "never"])
        axes.get_xticklabels()[-2].set_visible(False)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("first divergent token")
        axes.set_ylabel("prompts")

    def modules(axes, one):
        worst = sorted(one.by_module.items(), key=lambda row: row[1]["fdt_mean"])[:12]
        axes.barh(range(len(worst)), [row["fdt_mean"] for _, row in worst], color=colours.of(one.title))
        axes.set_yticks(range(len(worst)), [name.removeprefix("model.layers.") for name, _ in worst])
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.set_xlabel("mean first divergent token", loc="right")

    plots = []
    for number, one in enumerate(divergences):
        plots.append((f"divergence-{number}", f"First divergent token: {one.title}", draw(histogram, f"First divergent token: {one.title}", one)))
        if one.by_module:
            plots.append((f"divergence-modules-{number}", f"Most sensitive modules: {one.title}", draw(modules, f"Most sensitive modules: {one.title}", one)))
    return plots


def log_scale(axes, which, steps=(1,)):
    """Logarithmic, its numbers written without the library's mathematical markup. @param steps  what is marked of each decade"""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    axis.set_minor_formatter(NullFormatter())


def power_of_ten(value):
    """A number of one digit and noughts, in full or as a power of ten."""
    exponent = int(np.floor(np.log10(value) + 1e-9)) if value > 0 else 0
    if -3 <= exponent <= 3:
        return f"{value:g}"
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    digit = round(value / 10.0 ** exponent)
    return power if digit == 1 else f"{digit}·{power}"


def layer_axis(axes):
    axes.set_xlabel("layer")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def draw(fill, title, *arguments):
    """Draws one plot. @returns inline SVG"""
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=SIZE, layout="constrained")
        axes = canvas.add_subplot()
        fill(axes, *arguments)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(text.getvalue(), title)


def inline(svg, title):
    """An SVG file as part of an HTML page: no namespaces, metadata or sizes; ids unique to it; colours of the page."""
    root = ElementTree.fromstring(svg)
    prefix = "p" + hashlib.sha256(title.encode()).hexdigest()[:8] + "-"
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
        for name in [name for name in element.attrib if "}" in name]:
            element.set(name.rsplit("}", 1)[-1], element.attrib.pop(name))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag == "metadata"]:
            parent.remove(child)
    used = set(re.findall(r"(?:url\(#|href=\"#)([\w.-]+)", ElementTree.tostring(root, encoding="unicode")))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, prefix + value)
            elif name == "href" and value.startswith("#"):
                element.set(name, f"#{prefix}{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}"))
    root.attrib.pop("width", None), root.attrib.pop("height", None), root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-label", title)
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r"font-family: [^;\"]*;? ?", "", re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text))  # the page's own typeface
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text

