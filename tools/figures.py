"""What the figures of a report are called, and which way is better."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A figure of `fairgptq eval`."""

    label: str
    best: float | str | None  # "low", "high", the value to be near to, or None: it is not judged
    digits: int


FIGURES = {
    "perplexity": Figure("perplexity", "low", 2),
    "bits_per_token": Figure("bits per token", "low", 3),
    "accuracy": Figure("accuracy %", "high", 2),
    "accuracy_norm": Figure("accuracy by length %", "high", 2),
    "mean_abs_difference_per_token": Figure("mean |Δ| per token", "low", 4),
    "relative_difference": Figure("mean |Δ|, % of that to unrelated", "low", 2),
    "mean_abs_difference": Figure("mean |Δ|", "low", 3),
    "stereotype_preferred": Figure("stereotype preferred %", 50, 2),
    "ss": Figure("SS %", 50, 2),
    "lms": Figure("LMS %", "high", 2),
    "icat": Figure("ICAT %", "high", 2),
    "accuracy_ambiguous": Figure("accuracy, ambiguous %", "high", 2),
    "accuracy_disambiguated": Figure("accuracy, disambiguated %", "high", 2),
    "bias_ambiguous": Figure("bias, ambiguous %", 0, 2),
    "bias_disambiguated": Figure("bias, disambiguated %", 0, 2),
    "sofa_score": Figure("SOFA score", "low", 4),
    "delta_disparity": Figure("delta disparity", "low", 3),
}
COUNTS = {"items", "terms", "tokens", "sequences", "stereotypes"}
# The figure that stands for a kind of task where one is plotted.
BIAS = {"pair_preference": "mean_abs_difference_per_token", "stereoset": "mean_abs_difference_per_token",
        "bbq": "bias_ambiguous", "sofa": "sofa_score"}
ABILITY = {"perplexity": "perplexity", "multiple_choice": "accuracy_norm", "last_word": "accuracy"}


def figure_of(name):
    return FIGURES.get(name, Figure(name.replace("_", " "), None, 4))


def badness(name, value):
    """A number that is smaller the better a figure is; None where it is not judged."""
    best = figure_of(name).best
    if best is None:
        return None
    return value if best == "low" else -value if best == "high" else abs(value - best)


def written(name, value):
    """A figure as text; digits enough to see differences that matter."""
    return f"{value:.{figure_of(name).digits}f}"


def rows_of_tasks(reports):
    """[(task, kind, figure)] over all reports, tasks and figures each in the order in which they were found first; counts are
    left out."""
    rows = {}
    for report in reports:
        for name, task in report.tasks.items():
            for figure in task.figures:
                if figure not in COUNTS:
                    rows.setdefault(name, {}).setdefault((name, task.kind, figure))
    return [row for of_task in rows.values() for row in of_task]


def comparable(reports, task):
    """The reports that scored the same sequences in a task: those of the data that most of them (then the first) have."""
    having = [report for report in reports if task in report.tasks]
    data = [report.tasks[task].data for report in having]
    usual = max(data, key=lambda one: (data.count(one), -data.index(one))) if data else None
    return [report for report in having if report.tasks[task].data == usual]


def pareto(points):
    """Which of [(x, y)], smaller being better in both, no other point is better than (or as good in one and better in the other)."""
    return [not any(other[0] <= x and other[1] <= y and other != (x, y) for other in points) for x, y in points]
