#!/usr/bin/env python3
"""Gathers a sweep over α: a table, a plot of bias against ability, and the best α under a given loss of ability.

Reads DIR/points/point_NNN.json (tools/alpha_points.py), DIR/reports/point_NNN.json and DIR/reports/original.json (fairgptq
eval). Points without a report are named, and the others' results stand. Writes DIR/sweep.csv, DIR/best_alpha_map.json (for
quantize --alpha-map), and DIR/pareto.svg.
"""
import csv
import io
import json
from pathlib import Path

from figures import badness, pareto
from report_inputs import read_report
from support import InvalidInput, Parser, read_json_object, run, write_whole

# The figures that a sweep is judged by, the first that the reports have; smaller is better for both columns of the table.
BIAS = ("mean_abs_difference_per_token", "mean_abs_difference", "ss", "stereotype_preferred")
ABILITY = ("perplexity", "lms", "accuracy")


def figures_of(path):
    """{task: {figure: number}} of a report."""
    return {name: task.figures for name, task in read_report(path, read_json_object(path)).tasks.items()}


def read_point(path):
    """{pattern: α}"""
    point = read_json_object(path)
    if not point or not all(isinstance(alpha, (int, float)) for alpha in point.values()):
        raise InvalidInput(f"{path} is not an object with a number for each pattern, as tools/alpha_points.py writes it")
    return point


def loss_of(name, value, base):
    """The share of the base's ability that is lost."""
    return (badness(name, value) - badness(name, base)) / base


def choose(tasks, wanted, known, option):
    """(task, figure): as given, like wikitext.perplexity, or the first that the report has."""
    if wanted:
        task, _, figure = wanted.rpartition(".")
        if figure in known and figure in tasks.get(task, {}):
            return task, figure
        raise InvalidInput(f"{option} {wanted}: the reports have no such figure; it is TASK.FIGURE, with a FIGURE of {', '.join(known)}")
    for figure in known:
        for task, figures in tasks.items():
            if figure in figures:
                return task, figure
    raise InvalidInput(f"the reports have none of the figures {', '.join(known)}: evaluate on a token file that has such a task")


def alpha_text(point):
    return f"{point['*']:g}" if list(point) == ["*"] else f"map of {len(point)}, {min(point.values()):g} to {max(point.values()):g}"


def plot(rows, best, original_bias, names):
    """@returns the bytes of an SVG"""
    import matplotlib  # here, since it takes longer to load than all else
    matplotlib.use("svg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots(figsize=(6.5, 4.5))
    axes.axhline(original_bias, color="gray", linewidth=0.8, linestyle=":", label="original model")
    axes.plot([100 * row["loss"] for row in rows], [row["bias"] for row in rows], "o", color="tab:gray", label="tried")
    edge = sorted((row for row in rows if row["front"]), key=lambda row: row["loss"])
    axes.plot([100 * row["loss"] for row in edge], [row["bias"] for row in edge], "o-", color="tab:blue", label="Pareto front")
    if best is not None:
        axes.plot([100 * best["loss"]], [best["bias"]], "*", markersize=15, color="tab:orange", label=f"chosen: α = {best['alpha']}")
    for row in edge:
        axes.annotate(row["alpha"], (100 * row["loss"], row["bias"]), textcoords="offset points", xytext=(5, 5), fontsize=8)
    axes.set_xlabel(f"loss of ability, % ({names[1]})")
    axes.set_ylabel(f"bias ({names[0]})")
    axes.legend(fontsize=8)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="the sweep's folder, DIR")
    parser.add_argument("--max-loss", type=float, default=0.05, help="largest loss of ability that is taken, a share (default 0.05)")
    parser.add_argument("--bias", help="TASK.FIGURE (default: the first mean |Δ| per token)")
    parser.add_argument("--ability", help="TASK.FIGURE (default: the first perplexity)")
    parser.add_argument("--baseline", choices=("gptq", "original"), default="gptq",
                        help="what ability is lost against: α = 0 where it was tried (default), or the original model")
    options = parser.parse_args()
    folder = Path(options.folder)
    points = sorted((folder / "points").glob("point_*.json"))
    if not points:
        raise InvalidInput(f"{folder}/points has no point_NNN.json: tools/alpha_points.py makes them")
    original = figures_of(folder / "reports/original.json")
    bias_task, bias_figure = choose(original, options.bias, BIAS, "--bias")
    loss_task, loss_figure = choose(original, options.ability, ABILITY, "--ability")
    rows, failed = [], []
    for file in points:
        report = folder / "reports" / file.name
        if not report.is_file():
            failed.append(file.stem)
            continue
        tasks, point = figures_of(report), read_point(file)
        try:
            bias, ability = float(tasks[bias_task][bias_figure]), float(tasks[loss_task][loss_figure])
        except KeyError:
            raise InvalidInput(f"{report} lacks {bias_task}.{bias_figure} or {loss_task}.{loss_figure}: it was measured on other data") from None
        rows.append({"point": file.stem, "alpha": alpha_text(point), "map": point, "bias": badness(bias_figure, bias), "ability": ability})
    if not rows:
        raise InvalidInput(f"no point of {folder} has a report: see its logs")
    base = original[loss_task][loss_figure]
    against = "the original model"
    for row in rows:
        if options.baseline == "gptq" and set(row["map"].values()) == {0}:
            base, against = row["ability"], "α = 0"
            break
    if base == 0:
        raise InvalidInput(f"{loss_task}.{loss_figure} is 0 with {against}, and no share of it can be lost: name another --ability")
    for row in rows:
        row["loss"] = loss_of(loss_figure, row["ability"], base)
    fair = [row for row in rows if row["loss"] <= options.max_loss]
    best = min(fair, key=lambda row: row["bias"], default=None)
    for row, on_front in zip(rows, pareto([(row["loss"], row["bias"]) for row in rows])):
        row["front"] = on_front

    original_bias = badness(bias_figure, original[bias_task][bias_figure])
    names = (f"{bias_task}.{bias_figure}", f"{loss_task}.{loss_figure}")
    print(f"bias: {names[0]}, {original_bias:.4f} in the original model; ability: {names[1]}, loss against {against}\n")
    print(f"{'point':<12}{'alpha':<32}{'bias':>10}{'ability':>12}{'loss %':>9}")
    for row in sorted(rows, key=lambda row: row["loss"]):
        mark = " best" if row is best else " front" if row["front"] else ""
        print(f"{row['point']:<12}{row['alpha']:<32}{row['bias']:>10.4f}{row['ability']:>12.4f}{100 * row['loss']:>9.2f}{mark}")
    written = io.StringIO(newline="")
    table = csv.DictWriter(written, ["point", "alpha", "bias", "ability", "loss"], extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    write_whole(folder / "sweep.csv", written.getvalue().encode(), "")
    print()
    if best:
        write_whole(folder / "best_alpha_map.json", (json.dumps(best["map"], indent=1) + "\n").encode(), "")
        print(f"best alpha that loses at most {100 * options.max_loss:g} %: {best['alpha']} ({best['point']}); "
              f"use it with --alpha-map {folder}/best_alpha_map.json")
    else:
        print(f"no alpha loses at most {100 * options.max_loss:g} %")
    write_whole(folder / "pareto.svg", plot(rows, best, original_bias, names), "")
    print(f"plot: {folder}/pareto.svg")
    if failed:
        print(f"without a result: {', '.join(failed)}; run the same job again to retry them")


if __name__ == "__main__":
    run(main)
