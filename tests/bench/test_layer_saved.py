"""Saved bytes of the arms against numbers worked out by hand."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llava_mole.bench.layer import Settings, memory
from llava_mole.bench.layer.product import Mole
from llava_mole.bench.layer.weights import Weights
from llava_mole.bench.saved import bytes_saved

D, F_, R, T = 64, 160, 8, 40
SETTINGS = Settings(r=R, saved_shape=(D, F_), saved_tokens=T, saved_experts=(2, 4))


@pytest.fixture(scope="module")
def saved():
    """Bytes a token."""
    return {name: kib * 1024 for name, kib in memory.kib_per_token(SETTINGS).items()}


def test_peft_and_the_frozen_ffn(saved):
    # SiLU keeps its input and the product its factors: gate, silu(gate), up; two bytes each.
    assert saved["frozen"] == 3 * F_ * 2
    # A of gate and up keep x, A of down its input; each B keeps its own, of the rank's width.
    assert saved["PEFT"] == saved["frozen"] + (D + F_ + 3 * R) * 2
    # In float32 x is converted for gate and for up.
    assert saved["PEFT, float32 adapters"] == saved["frozen"] + (2 * D + F_ + 3 * R) * 4
    # Dropout keeps its mask, on the CPU of its input's dtype.
    dropped = (2 * D + F_) * 4
    assert saved["PEFT default"] == saved["PEFT, float32 adapters"] + dropped


def test_one_expert_is_peft(saved):
    # The routes are the router's: at most two probabilities, a choice and a sequence of int64.
    assert saved["PEFT"] <= saved["MoLE K=1"] <= saved["PEFT"] + 48


def test_dense_grows_by_every_experts_output(saved):
    # Of each expert three outputs and three of the rank's width.
    per_expert = (2 * F_ + D) * 2 + 3 * R * 2
    assert saved["dense K=4"] - saved["dense K=2"] == pytest.approx(2 * per_expert, abs=40)
    assert saved["dense K=2"] > saved["frozen"] + 2 * per_expert


def test_sparse_mixtures_do_not_grow(saved):
    for kind in ("MoLE", "mask loop", "MixLoRA-style"):
        # Routes: two float32 probabilities more for each expert.
        assert 0 <= saved[f"{kind} K=4"] - saved[f"{kind} K=2"] <= 2 * 3 * 4 + 8, kind


class Made(TorchDispatchMode):
    """Every storage that an operation makes while it is on."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result


@pytest.mark.parametrize("routing", ["top1", "dense"])
def test_mole_holds_nothing_that_it_does_not_save(routing):
    weights = Weights.draw((D, F_), 3, R, torch.bfloat16)
    x = weights.tokens(T).requires_grad_()
    arm = Mole(weights, routing=routing)
    counted = bytes_saved(lambda: arm(x), arm.parameters())
    with Made() as made:
        result = arm(x)
    there = [*arm.parameters(), x, result[0]]  # of which operations made views
    for tensor in there:
        made.storages.pop(tensor.untyped_storage()._cdata, None)
    alive = sum(size for ref, size in made.storages.values() if not ref.expired())
    # What the routing's record keeps for logs: a few numbers a token.
    record = T * 64 + 256
    assert alive + x.untyped_storage().nbytes() <= counted + record
    assert alive > counted / 2  # it does see them
