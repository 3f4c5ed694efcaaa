"""tools/table.py: a row for each report, changes from one of them, and refusals."""
import pytest
from report_data import tasks, write_report, write_run
from running import refused, run_tool


@pytest.fixture
def reports(tmp_path):
    return [write_report(tmp_path / "original.json", tasks(20, 0.5)), write_report(tmp_path / "gptq.json", tasks(25, 0.4), run="gptq", alpha=0),
            write_report(tmp_path / "fair.json", tasks(26, 0.3), run="fair")]


def printed(*arguments):
    process = run_tool("table.py", *arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def test_a_row_for_each_model(reports):
    assert printed(*reports, "--columns", "words,crows.mean_abs_difference_per_token") == [
        "| model | words: perplexity | crows: mean \\|Δ\\| per token |", "| --- | --- | --- |", "| original | 20.00 | 0.5000 |",
        "| GPTQ, 4-bit | 25.00 | 0.4000 |", "| Fair-GPTQ α = 0.1, 4-bit | 26.00 | 0.3000 |"]
    assert printed(reports[0])[0].count("|") - printed(reports[0])[0].count("\\|") == 6  # every figure


def test_changes_from_one_of_them_and_names(reports):
    assert printed(reports[0], reports[1], f"mine={reports[2]}", "--columns", "crows.mean_abs_difference,words", "--relative-to", reports[1])[2:] == [
        "| original | 4.500 (+25.0 %) | 20.00 (-20.0 %) |", "| GPTQ, 4-bit | 3.600 | 25.00 |", "| mine | 2.700 (-25.0 %) | 26.00 (+4.0 %) |"]


def test_figures_of_other_data_are_left_out(reports, tmp_path):
    found = tasks(1, 0.1)
    found["words"]["data"] = "other"
    other = write_report(tmp_path / "other.json", found, run="other", alpha=3)
    assert printed(*reports, other, "--columns", "words")[-1] == "| Fair-GPTQ α = 3, 4-bit | – |"


def test_what_is_wrong_is_refused(reports, tmp_path):
    assert "no report has 'nothing'; there are words.perplexity" in refused(run_tool("table.py", *reports, "--columns", "nothing"))
    assert "none of the reports" in refused(run_tool("table.py", reports[0], "--relative-to", reports[1]))
    assert "REPORT.json files alone" in refused(run_tool("table.py", write_run(tmp_path / "run")))
    assert "does not exist" in refused(run_tool("table.py", "name=nowhere.json"))
