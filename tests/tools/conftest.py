"""What the tests of tools/ share: how a tool is run, and where the reference data are."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))


def run_tool(name, *arguments):
    """Runs tools/NAME as a user would. @returns the finished process, stdout and stderr as text"""
    return subprocess.run([sys.executable, str(TOOLS / name), *map(str, arguments)], capture_output=True, text=True,
                          check=False)


def refused(process):
    """The one sentence with which a tool refused; fails unless it ended with exit code 2."""
    assert process.returncode == 2, process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    return lines[0]


@pytest.fixture(scope="session")
def shared():
    """The folder of reference data."""
    folder = Path(os.environ.get("FAIRGPTQ_SHARED_DIR", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder
