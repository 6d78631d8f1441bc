"""The shipped row files against the paper's printed tables."""

import copy
import dataclasses
import shutil
from pathlib import Path

import pytest
from peft import get_peft_model
from peft.tuners.lora import LoraLayer

from llava_mole.config import ConfigError, load
from llava_mole.eval.paper import printed_rows, row_of, setting_of
from llava_mole.reproduce.rows import PAPER_TABLES, find, read_rows
from llava_mole.reproduce.select import select
from llava_mole.reproduce.types import PlainLora
from llava_mole.train.adapter import peft_config
from llava_mole.train.config import RunConfig

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = CONFIGS / "experiments"
ROWS = read_rows(EXPERIMENTS)
TRAINED = [item for item in ROWS if item.row.kind == "trained"]
PAPER = [item for item in TRAINED if item.row.table in PAPER_TABLES]
BEYOND = [item for item in ROWS if item.row.table == "beyond"]
CONTROLS = [item for item in ROWS if item.row.table == "controls"]


def name_of(item):
    return f"{item.row.table}/{item.row.name}"


def test_every_printed_row_has_its_own_row_in_order():
    printed = [(str(one.table), one.number) for one in printed_rows()]
    found = [item.row for item in ROWS if item.row.table in PAPER_TABLES]
    assert [(row.table, row.number) for row in found] == printed
    for row, one in zip(found, printed_rows(), strict=True):
        assert row.printed == one.row.scores


@pytest.mark.parametrize("item", PAPER, ids=name_of)
def test_a_row_is_trained_as_its_table_prints_it(item):
    (printed,) = [
        one
        for one in printed_rows()
        if (str(one.table), one.number) == (item.row.table, item.row.number)
    ]
    config = load(RunConfig, item.file)
    assert setting_of(dataclasses.asdict(config)) == printed.setting
    assert setting_of(item.delta) == printed.setting
    # Rows that several tables print are Table 2's run.
    assert row_of(dataclasses.asdict(config)).scores.items() >= printed.row.scores.items()


@pytest.mark.parametrize("item", [*PAPER, *CONTROLS], ids=name_of)
def test_a_row_file_opens_with_its_command_and_changes_nothing_else(item):
    config = load(RunConfig, item.file)
    kind = config.adapter.type
    place = item.file.relative_to(CONFIGS.parent)
    head = item.file.read_text(encoding="utf-8").splitlines()
    assert head[0] == f"# CONFIG={place} bash scripts/finetune_{kind}.sh"
    if item.row.number is not None:
        assert head[2].startswith(f"# Table {item.row.table}, row {item.row.number}: ")
    base = load(RunConfig, CONFIGS / f"finetune_{kind}.yaml")
    assert list(config.data.domains) == list(base.data.domains)
    for name, domain in config.data.domains.items():
        domain.weight = base.data.domains[name].weight
    assert config.adapter.lora_alpha == 2 * config.adapter.r
    for key, value in config.adapter.alpha_pattern.items():
        assert value == 2 * config.adapter.rank_pattern[key]
    own = ("num_experts", "r", "lora_alpha", "routing", "rank_pattern", "alpha_pattern")
    for key in own:
        setattr(config.adapter, key, getattr(base.adapter, key))
    config.train.num_train_epochs = base.train.num_train_epochs
    config.train.run_name = config.output_dir = None
    base.output_dir = None
    assert config == base


def test_titles_are_those_of_the_paper():
    titles = {name_of(item): item.row.title for item in ROWS}
    assert titles["2/llava-1.5-official"] == "LLaVA-1.5*"
    assert titles["2/llava-1.5-1-0-0"] == "LLaVA-1.5†[1,0,0]"
    assert titles["2/llava-mix-x2-1-1-1"] == "LLaVA-Mix×2[1,1,1]"
    assert titles["3/llava-mole-1-1-r128"] == "LLaVA-MoLE[1,1]-R128"
    assert titles["4/llava-mole-k5"] == "LLaVA-MoLE, K = 5"
    assert titles["5/llava-mole-dense-k3"] == "dense MoLE[1,1,1]"
    assert titles["controls/llava-mix-equal-1-1-1"] == "LLaVA-Mix[1,1,1], FFN rank 96"


@pytest.mark.parametrize("item", BEYOND, ids=name_of)
def test_a_row_beyond_the_paper_opens_with_its_command(item):
    head = item.file.read_text(encoding="utf-8").splitlines()
    assert head[0] == (
        f"# At the tiny scale alone: llava-mole reproduce --rows {item.row.name} --scale tiny"
    )
    assert (item.stage_1 is None) == ("-stage1-" not in item.row.name)


@pytest.mark.parametrize("experts", [3, 6, 12])
def test_six_domains_have_a_control_for_each_number_of_experts(experts):
    mole, equal, plain = (
        find(BEYOND, name).delta
        for name in (
            f"llava-mole-six-k{experts}",
            f"llava-mix-six-equal-k{experts}",
            "llava-mix-six",
        )
    )
    assert mole["adapter"]["num_experts"] == experts
    assert set(equal["adapter"]["rank_pattern"].values()) == {32 * experts}
    assert set(equal["adapter"]["alpha_pattern"].values()) == {64 * experts}
    assert mole["data"] == equal["data"] == plain["data"]
    weights = {domain["weight"] for domain in plain["data"]["domains"].values()}
    assert (len(plain["data"]["domains"]), weights) == (6, {1})


def test_plain_loras_say_how_they_are_trained():
    plain = {item.row.name: item.row.plain for item in ROWS if item.row.plain}
    assert plain["llava-mix-1-2-1"] == PlainLora(
        {"general": 1, "document": 2, "biomedicine": 1}, 32, 1
    )
    assert plain["llava-mix-x2-1-1-1"].epochs == 2
    assert plain["llava-mix-1-0-r96"] == PlainLora({"general": 1}, 96, 1)
    assert plain["llava-document-short"] == PlainLora({"document-short": 1}, 32, 1)
    others = ("mole", "equal", "stage1", "official")
    assert not [name for name in plain if any(other in name for other in others)]


@pytest.mark.parametrize("item", CONTROLS, ids=name_of)
def test_a_control_has_the_parameters_of_its_mole_without_the_router(item, llava):
    config = load(RunConfig, item.file)
    (rank,) = set(config.adapter.rank_pattern.values())
    r = config.adapter.r
    assert rank % r == 0
    weights = [domain.weight for domain in config.data.domains.values()]
    (mole,) = {
        (other.adapter.num_experts, other.adapter.r)
        for other in (load(RunConfig, one.file) for one in PAPER)
        if other.adapter.type == "mole"
        and other.adapter.num_experts == rank // r
        and other.adapter.r == r
        and [domain.weight for domain in other.data.domains.values()] == weights
    }
    # A sixteenth of the ranks, on a tiny model.
    small = dataclasses.replace(
        config.adapter,
        r=r // 16,
        rank_pattern={key: value // 16 for key, value in config.adapter.rank_pattern.items()},
    )
    experts = dataclasses.replace(
        small, type="mole", num_experts=mole[0], rank_pattern={}, alpha_pattern={}
    )
    assert count(llava, small) == count(llava, experts)


def count(llava, adapter) -> int:
    """Trained numbers of an adapter on a copy of ``llava``, projector and routers left out."""
    model = copy.deepcopy(llava)
    model = get_peft_model(model, peft_config(adapter, model))
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and "projector" not in name and "router" not in name
    )


def test_a_rank_pattern_scales_each_lora_by_its_own_alpha(llava):
    config = load(RunConfig, find(ROWS, "llava-mix-equal-1-1-1").file)
    model = get_peft_model(llava, peft_config(config.adapter, llava))
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    assert {m.scaling["default"] for m in layers.values()} == {2.0}
    ranks = {n: m.r["default"] for n, m in layers.items()}
    assert {r for n, r in ranks.items() if ".mlp." in n} == {96}
    assert {r for n, r in ranks.items() if ".self_attn." in n} == {32}
    assert not [n for n in ranks if "vision" in n]


@pytest.fixture
def experiments(tmp_path):
    folder = tmp_path / "experiments"
    shutil.copytree(EXPERIMENTS, folder)
    return folder


def test_a_row_that_leaves_something_to_its_base_is_refused(experiments):
    file = experiments / "table2/llava-mix-1-1-0.yaml"
    file.write_text(file.read_text().replace("  r: 32\n", ""))
    with pytest.raises(ConfigError, match=r"llava-mix-1-1-0\.yaml: .* must say adapter\.r itself"):
        read_rows(experiments)


def test_what_the_paper_does_not_print_is_no_row_of_its_table(experiments):
    file = experiments / "table2/llava-mix-1-1-0.yaml"
    file.write_text(file.read_text().replace("{weight: 1}", "{weight: 3}"))
    with pytest.raises(ConfigError, match=r"no row of the paper's Table 2"):
        read_rows(experiments)


def test_rows_are_selected_by_table_figure_and_name():
    def names(**what):
        return [item.row.name for item in select(ROWS, **what)]

    assert names(tables=["4"]) == [f"llava-mole-k{k}" for k in (2, 3, 5, 8, 16)]
    assert names(figures=["3"]) == ["llava-mole-1-1-1"]
    assert names(names=["llava-mole-k5", "llava-mix-1-1-0"]) == ["llava-mix-1-1-0", "llava-mole-k5"]
    assert len(names(everything=True)) == len(ROWS)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"names": ["llava-mole-1-1-2"]}, r"no row is named 'llava-mole-1-1-2'; did you mean"),
        ({"tables": ["7"]}, "--table 7: there are 2, 3, 4, 5, "),
        ({"figures": ["2"]}, "--figure 2: there are 1, 3"),
        ({}, "say what is reproduced"),
    ],
)
def test_unknown_names_are_said(what, message):
    with pytest.raises(ValueError, match=message):
        select(ROWS, **what)
