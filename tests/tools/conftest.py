"""The models that several files use."""
import pytest
from preparing import bytes_model, words_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model folder whose tokens are whole words."""
    return words_model(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def letters(tmp_path_factory):
    """A model folder whose tokens are bytes."""
    return bytes_model(tmp_path_factory.mktemp("letters"))
