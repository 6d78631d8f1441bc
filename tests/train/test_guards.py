"""What would go wrong in silence on GPUs or on several machines is refused, or put right."""

import pickle

import pytest
import torch
from torch import nn
from transformers import TrainingArguments

from llava_mole.train import run
from llava_mole.train.arguments import training_arguments
from llava_mole.train.callbacks import RotaryInFloat32
from tests.train.tiny_run import run_config


def rotary(dtype: torch.dtype) -> nn.Module:
    model = nn.Module()
    model.rotary_emb = nn.Module()
    model.rotary_emb.register_buffer("inv_freq", torch.ones(4, dtype=dtype))
    return model


def test_rotary_frequencies_that_were_cast_stop_the_run():
    RotaryInFloat32().on_train_begin(None, None, None, model=rotary(torch.float32))
    with pytest.raises(ValueError, match=r"rotary_emb\.inv_freq is torch\.bfloat16.*0\.19\.2"):
        RotaryInFloat32().on_train_begin(None, None, None, model=rotary(torch.bfloat16))


def test_several_gpus_without_a_launcher_are_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        TrainingArguments, "n_gpu", property(lambda self: getattr(self, "_n_gpu", 4) or 4)
    )
    assert training_arguments(run_config(tmp_path)).n_gpu == 1
    assert "4 GPUs are here and one is used" in caplog.text


class Opened:
    """What a rank can't find when it is unpickled."""

    def __reduce__(self):
        return open, ("/nowhere/cache/data.arrow",)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_folder_that_one_machine_lacks_stops_all(monkeypatch, rank):
    """With stand-ins for the collectives: each rank is told what the other one said."""

    def broadcast(sent, src):
        sent[0] = pickle.dumps((Opened(), None)) if rank else pickle.dumps((1, None))

    def gather(everywhere, own):
        assert (own is None) == (rank == 0)
        everywhere[:] = [None, own or "rank 1: No such file or directory"]

    monkeypatch.setattr(run.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(run.dist, "get_rank", lambda: rank)
    monkeypatch.setattr(run.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(run.dist, "broadcast_object_list", broadcast)
    monkeypatch.setattr(run.dist, "all_gather_object", gather)
    with pytest.raises(ValueError, match=r"rank 1: .*No such file.*data\.cache_dir"):
        run._on_rank_0_first(lambda: 1)
