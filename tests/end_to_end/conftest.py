"""Models and token files that several files use."""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads would spin while the program computes on the same cores

import pytest  # noqa: E402
from workshop import write_model, write_tokens  # noqa: E402


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A model of three layers and its token file."""
    folder = tmp_path_factory.mktemp("tiny")
    return write_model(folder / "model"), write_tokens(folder / "tokens.h5")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A model whose run takes long enough to be interrupted in the middle."""
    folder = tmp_path_factory.mktemp("small")
    model = write_model(folder / "model", layers=6, hidden=256, intermediate=640, heads=4, key_value_heads=2)
    return model, write_tokens(folder / "tokens.h5", pairs=200, texts=40, text_length=200)
