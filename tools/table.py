#!/usr/bin/env python3
"""Prints evaluations as a Markdown table with a row for each model, for tables that are longer than wide."""
from pathlib import Path

from figures import comparable, figure_of, rows_of_tasks, written
from model_card import markdown_table
from report_inputs import read_inputs
from support import InvalidInput, Parser, run


def chosen_columns(reports, wanted):
    """[(task, figure)] of the table: those wanted, or all."""
    every = [(task, figure) for task, _, figure in rows_of_tasks(reports)]
    if not wanted:
        return every
    columns = []
    for text in wanted.split(","):
        found = [(task, figure) for task, figure in every if text in (task, f"{task}.{figure}")]
        if not found:
            raise InvalidInput(f"--columns: no report has '{text}'; there are {', '.join(f'{task}.{figure}' for task, figure in every)}")
        columns += found
    return list(dict.fromkeys(columns))


def rows(reports, columns, baseline, names):
    for report in reports:
        cells = [names.get(str(report.path), report.title)]
        for task, figure in columns:
            same = comparable(reports, task)
            if report not in same or figure not in report.tasks[task].figures:
                cells.append("–")
                continue
            value = report.tasks[task].figures[figure]
            text = written(figure, value)
            before = baseline.tasks[task].figures.get(figure) if baseline in same and baseline is not report else None
            if before:
                text += f" ({100 * (value - before) / abs(before):+.1f} %)"
            cells.append(text)
        yield cells


def main():
    parser = Parser(description="Prints REPORT.json files of fairgptq eval as a Markdown table, a row for each.")
    parser.add_argument("reports", nargs="+", metavar="REPORT.json", help="a report; NAME=REPORT.json gives its row a name of your own")
    parser.add_argument("--columns", metavar="A,B", help="tasks, or figures of tasks as TASK.FIGURE (default: all)")
    parser.add_argument("--relative-to", metavar="REPORT.json", help="one of the reports: the others' figures get their change from it")
    options = parser.parse_args()
    named = [text.rpartition("=") if not Path(text).exists() else ("", "", text) for text in options.reports]
    reports, others, more = read_inputs([path for _, _, path in named])
    if others or more:
        raise InvalidInput("a table is made of REPORT.json files alone; tools/report.py takes runs and divergence files, too")
    baseline = next((report for report in reports if report.path == Path(options.relative_to)), None) if options.relative_to else None
    if options.relative_to and baseline is None:
        raise InvalidInput(f"--relative-to {options.relative_to} is none of the reports")
    columns = chosen_columns(reports, options.columns)
    names = {str(Path(path)): name for name, _, path in named if name}
    heading = ["model", *(f"{task}: {figure_of(figure).label}" if figure_of(figure).label != task else task for task, figure in columns)]
    print("\n".join(markdown_table(heading, rows(reports, columns, baseline, names))))


if __name__ == "__main__":
    run(main)
