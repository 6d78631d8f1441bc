"""Fixtures shared by all rooms."""

import pytest
import torch

from tests import tiny


@pytest.fixture(autouse=True)
def _reproducible():
    """Each test starts from the same seed and, for bitwise comparisons, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer():
    """The byte-level tokenizer with ``<image>`` and ``<pad>``."""
    return tiny.tiny_tokenizer()


@pytest.fixture
def llava():
    """A fresh tiny LLaVA in eval mode."""
    return tiny.tiny_llava()
