"""Liger's kernels: what is asked of them, and what is said where they can't be. They need a GPU."""

import sys

import pytest
import torch

from llava_mole.model import liger
from tests import tiny

PACKAGE = """
MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}
def _apply_liger_kernel_to_instance(model, **parts):
    model.given = parts
"""


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def package(tmp_path, monkeypatch, gpu):
    """A package in Liger's place, since its own can't even be imported without Triton."""
    folder = tmp_path / "liger_kernel/transformers"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "monkey_patch.py").write_text(PACKAGE)
    for name in [name for name in sys.modules if name.split(".")[0] == "liger_kernel"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "liger_kernel"]:
        del sys.modules[name]


def test_norms_and_rotary_embeddings_of_the_decoder_and_no_ffn(package):
    model = tiny.tiny_llava()
    liger.apply_liger_kernel(model)
    given = model.get_decoder().given
    assert given["rope"]
    assert given["rms_norm"]
    assert [key for key, value in given.items() if not value] == [
        "swiglu",
        "cross_entropy",
        "fused_linear_cross_entropy",
    ]


def test_a_decoder_that_liger_does_not_know(package):
    model = tiny.tiny_llava()
    model.get_decoder().config.model_type = "unknown"
    with pytest.raises(ValueError, match=r"use_liger_kernel: .*'unknown' decoder; set it to false"):
        liger.apply_liger_kernel(model)


def test_no_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="use_liger_kernel: its kernels need a GPU"):
        liger.apply_liger_kernel(tiny.tiny_llava())


def test_not_installed(gpu, monkeypatch):
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install liger-kernel"):
        liger.apply_liger_kernel(tiny.tiny_llava())
