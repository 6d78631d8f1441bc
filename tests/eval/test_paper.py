"""Which row of the paper a config is."""

import dataclasses
from pathlib import Path

import pytest

from llava_mole.config import load
from llava_mole.eval.paper import row_of
from llava_mole.train.config import RunConfig

CONFIGS = Path(__file__).parents[2] / "configs"
TABLE2 = CONFIGS / "experiments/table2"
# In the order of the paper's rows 3 to 15.
ROWS = ["llava-1.5-1-0-0", "llava-doc-0-1-0", "llava-med-0-0-1", "llava-mix-1-1-0",
        "llava-mix-1-0-1", "llava-mix-1-1-1", "llava-mix-1-2-0", "llava-mix-1-2-1",
        "llava-mix-x2-1-1-1", "llava-mole-1-1-0", "llava-mole-1-1-1", "llava-mole-1-2-0",
        "llava-mole-1-2-1"]  # fmt: skip


def values(path, *overrides):
    return dataclasses.asdict(load(RunConfig, path, overrides))


@pytest.mark.parametrize(("number", "name"), enumerate(ROWS, start=3))
def test_each_row_of_table_2_is_found_from_its_config(number, name):
    assert row_of(values(TABLE2 / f"{name}.yaml")).place == f"paper, Table 2 row {number}"


def test_the_numbers_are_those_printed():
    row = row_of(values(TABLE2 / "llava-mole-1-2-1.yaml"))
    assert (row.model, row.scores["All"], row.scores["Closed"]) == ("LLaVA-MoLE", 303.6, 91.35)


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["adapter.num_experts=5", "data.domains.biomedicine.weight=0"], "paper, Table 4 row 3"),
        (["adapter.num_experts=2", "data.domains.document.weight=0", "adapter.routing=dense"],
         "paper, Table 5 row 2"),
        (["adapter.num_experts=2", "data.domains.biomedicine.weight=0", "adapter.r=128"],
         "paper, Table 3 row 10"),
    ],
)  # fmt: skip
def test_rows_of_the_other_tables(overrides, place):
    assert row_of(values(CONFIGS / "finetune_mole.yaml", *overrides)).place == place


@pytest.mark.parametrize(
    "override",
    ["adapter.num_experts=4", "data.domains.document.weight=3", "adapter.r=16",
     "train.num_train_epochs=3", "train.max_steps=10", "stage=pretrain",
     "train.router_domain_coef=1.0",
     "model.language_model=lmsys/vicuna-13b-v1.5", "model.language_model=smollm2-4-layers"],
)  # fmt: skip
def test_what_the_paper_did_not_train_has_no_row(override):
    path = CONFIGS / "finetune_mole.yaml"
    assert row_of(values(path)) is not None
    assert row_of(values(path, override)) is None


@pytest.mark.parametrize("name", ["llava-mix-equal-1-1-1", "llava-mix-equal-1-1-0"])
def test_plain_lora_of_equal_parameters_is_no_row_of_the_paper(name):
    assert row_of(values(CONFIGS / f"experiments/controls/{name}.yaml")) is None


def test_the_quickstart_has_no_row_and_the_published_checkpoint_is_row_1():
    assert row_of(values(CONFIGS / "quickstart_finetune.yaml")) is None
    row = row_of({"model": {"checkpoint": "llava-hf/llava-1.5-7b-hf"}})
    assert (row.place, row.scores["All"]) == ("paper, Table 2 row 1", 307.2)
    assert row_of({"model": {"checkpoint": "llava-hf/llava-1.5-13b-hf"}}) is None
