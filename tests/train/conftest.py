"""Reference runs that several tests compare with; each is made once a session."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava_mole.config import from_dict
from llava_mole.train.config import RunConfig
from llava_mole.train.run import train
from tests.train.tiny_run import run_values

WEIGHTS = {"finetune": "adapter_model.safetensors", "pretrain": "projector.safetensors"}


def weights(run: Path) -> dict[str, torch.Tensor]:
    """What a run or checkpoint trained."""
    (path,) = [run / name for name in WEIGHTS.values() if (run / name).exists()]
    return load_file(path)


def largest_difference(one: dict, other: dict) -> float:
    """Over all tensors; both must have the same names."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


class Runs:
    """Makes tiny runs below one folder, which holds their data and tokenizer."""

    def __init__(self, folder: Path):
        self.folder = folder

    def values(self, name: str, stage: str = "finetune", **train_values) -> dict:
        """Config values of a run called ``name``, without dropout."""
        values = run_values(self.folder, stage, **train_values)
        values["adapter"]["lora_dropout"] = 0.0
        values["output_dir"] = str(self.folder / name)
        return values

    def run(self, values: dict, **options) -> Path:
        """Trains in this process."""
        return train(from_dict(RunConfig, values, "test"), **options)


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Runs:
    """A folder of tiny runs."""
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def one_process(runs) -> Path:
    """20 finetuning steps of 8 samples in one forward each: what every layout must equal."""
    torch.set_num_threads(1)
    values = runs.values("one", per_device_train_batch_size=8, max_steps=20)
    return runs.run(values)


@pytest.fixture(scope="session")
def one_process_pretrain(runs) -> Path:
    """The same of stage 1."""
    torch.set_num_threads(1)
    values = runs.values("one_pretrain", "pretrain", per_device_train_batch_size=8, max_steps=20)
    return runs.run(values)
