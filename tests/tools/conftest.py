"""Where the reference data are, and the models that several files use."""
import os
from pathlib import Path

import pytest
from preparing import bytes_model, words_model
from running import ROOT


@pytest.fixture(scope="session")
def shared():
    """The folder of reference data."""
    folder = Path(os.environ.get("FAIRGPTQ_SHARED_DIR", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model folder whose tokens are whole words."""
    return words_model(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def letters(tmp_path_factory):
    """A model folder whose tokens are bytes."""
    return bytes_model(tmp_path_factory.mktemp("letters"))
