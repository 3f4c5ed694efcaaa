"""How the tests of tools/ run a tool, and what they expect of a refusal."""
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))


def run_tool(name, *arguments, largest_file=None):
    """Runs tools/NAME as a user would. @returns the finished process, stdout and stderr as text

    @param largest_file  bytes; the system refuses to write more to a file, as a full disk would
    """
    def limit():
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    return subprocess.run([sys.executable, str(TOOLS / name), *map(str, arguments)], capture_output=True, text=True,
                          check=False, preexec_fn=limit)


def refused(process):
    """The one sentence with which a tool refused; fails unless it ended with exit code 2."""
    assert process.returncode == 2, process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    return lines[0]
