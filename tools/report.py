#!/usr/bin/env python3
"""Makes one self-contained HTML page of evaluations, runs and divergence measurements, and a model card of a run."""
from pathlib import Path

from model_card import card_of, markdown
from report_inputs import read_inputs
from support import InvalidInput, Parser, check_out, run, write_whole


def parse_options():
    parser = Parser(description="Makes one HTML page with plots and tables, which needs nothing beside itself, of REPORT.json files (fairgptq eval), "
                                "run folders (fairgptq quantize) and divergence files (fairgptq diverge); and, on request, a model card.")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="REPORT.json, RUN folder or DIVERGENCE.json, in any order")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.html", help="page to write; an existing one is replaced")
    parser.add_argument("--title", help="heading of page and card (default: from the models' names)")
    parser.add_argument("--card", type=Path, metavar="README.md", help="write the model card of a run, with the header that Hugging Face reads")
    parser.add_argument("--card-run", metavar="RUN", help="which of the RUN folders the card is of (default: the only one)")
    parser.add_argument("--base-model", metavar="ID", help="for the card: the original model's name on the Hub")
    parser.add_argument("--license", metavar="ID", help="for the card: the model's licence, as the Hub names it (apache-2.0, …)")
    return parser.parse_args()


def subject_of(options, runs):
    """The run that the card is of; None without --card."""
    if options.card is None:
        for name in ("card_run", "base_model", "license"):
            if getattr(options, name):
                raise InvalidInput(f"--{name.replace('_', '-')} is for a model card: give --card README.md, too")
        return None
    found = runs if options.card_run is None else [run for run in runs if run.path.resolve() == Path(options.card_run).resolve()]
    if len(found) != 1:
        raise InvalidInput(f"--card-run {options.card_run} is none of the RUN folders given" if options.card_run else
                           f"--card is for one run, and {len(found)} are given: say which with --card-run RUN" if found else
                           "--card needs a RUN folder among the inputs")
    return found[0]


def write_text(option, path, text):
    write_whole(path, text.encode(), option)
    print(f"{path}: written, {len(text.encode()):,} bytes")


def main():
    options = parse_options()
    for name in ("out", "card"):
        if getattr(options, name) is not None:
            check_out(getattr(options, name), f"--{name}")
    reports, runs, divergences = read_inputs(options.inputs)
    subject = subject_of(options, runs)
    from report_page import page  # here, since what it draws with takes longer to load than most inputs take to check
    text = page(reports, runs, divergences, options, subject)
    card = markdown(subject, card_of(subject, reports), reports, options) if subject else None
    write_text("--out", options.out, text)
    if card is not None:
        write_text("--card", options.card, card)


if __name__ == "__main__":
    run(main)
