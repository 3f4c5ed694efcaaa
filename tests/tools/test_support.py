"""What the tools share: how they fail."""
import subprocess
import sys

import pytest
from running import TOOLS
from support import InvalidInput, read_json_object


def test_ctrl_c_ends_without_a_traceback():
    program = "import os, signal, support; support.run(lambda: os.kill(os.getpid(), signal.SIGINT))"
    done = subprocess.run([sys.executable, "-c", program], cwd=TOOLS, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_number_of_too_many_digits_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": ' + "1" * 5000 + "}")
    with pytest.raises(InvalidInput, match="a.json is not JSON"):
        read_json_object(path)
