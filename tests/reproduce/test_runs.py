"""Rows to runs: sharing, identity, scales."""

from pathlib import Path

import pytest
import yaml

from llava_mole.config import ConfigError
from llava_mole.reproduce.claims import load
from llava_mole.reproduce.put_on import NotAtScale, run_config
from llava_mole.reproduce.rows import find, read_rows
from llava_mole.reproduce.runs import resolve_runs, summary
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.reproduce.store import Store
from tests.reproduce.tiny_scale import DOMAINS, MORE, write_beyond, write_experiments

NEW = {
    "datasets": [{"name": "new", "path": "new.json"}],
    "benchmarks": [{"name": "new", "path": "new.jsonl"}],
    "columns": ["new"],
}
EXPERIMENTS = Path(__file__).parents[2] / "configs/experiments"


@pytest.fixture
def experiments(tmp_path):
    return write_experiments(tmp_path)


def runs_of(experiments, scale, names=(), seeds=(0,), output=None, **what):
    rows = read_rows(experiments)
    selected = select(rows, names=list(names), **what)
    return resolve_runs(read_scale(experiments, scale), rows, selected, seeds, output)


def change(file, **values):
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**content, **values}))


@pytest.mark.parametrize("scale", ["paper", "tiny"])
def test_rows_that_are_one_run_are_run_once(experiments, scale):
    runs = {run.rows: run for run in runs_of(experiments, scale, everything=True)}
    shared = {rows for rows in runs if len(rows) > 1}
    assert shared == {
        ("llava-1.5-1-0-0", "llava-mix-1-0-r32"),
        ("llava-mix-1-1-0", "llava-mix-1-1-r32"),
        ("llava-mole-1-1-0", "llava-mole-1-1-r32", "llava-mole-k2"),
        ("llava-mole-1-1-1", "llava-mole-sparse-k3"),
    }
    # Two tables print two rows by the same name.
    assert ("llava-mix-1-0-1",) in runs
    assert ("llava-mix-1-1-1",) in runs
    assert len({run.folder for run in runs.values()}) == len(runs)
    # A run bears all its rows, whichever was asked for.
    (run,) = runs_of(experiments, scale, ["llava-mole-k2"])
    assert run.rows == ("llava-mole-1-1-0", "llava-mole-1-1-r32", "llava-mole-k2")


def test_checkpoints_are_evaluated_at_paper_scale_alone(experiments):
    (run,) = runs_of(experiments, "paper", ["llava-1.5-official"], seeds=(1, 2))
    assert (run.config, run.checkpoint) == (None, "llava-hf/llava-1.5-7b-hf")
    assert runs_of(experiments, "tiny", ["llava-1.5-official"]) == []
    assert runs_of(experiments, "paper", ["llava-med-official"]) == []


def test_a_paper_run_has_the_folder_of_its_row_file(experiments):
    runs = runs_of(EXPERIMENTS, "paper", ["llava-mole-1-2-1"], seeds=(42, 7))
    folders = [str(run.folder) for run in runs]
    own = "playground/runs/table2/llava-mole-1-2-1"
    assert folders == [own, f"{own}-seed7"]
    (run,) = runs_of(EXPERIMENTS, "paper", ["llava-mole-1-2-1"], output=Path("elsewhere"))
    assert run.folder == Path("elsewhere/runs") / run.name


def test_a_row_that_builds_on_another_has_a_folder_of_its_own(experiments):
    file = experiments / "mine/lower-rate.yaml"
    file.parent.mkdir()
    file.write_text(
        "base: ../table2/llava-mole-1-2-1.yaml\ntrain: {learning_rate: 1.0e-5}\n"
        "adapter: {gate_scaling: prob}\n"
    )
    mine, row = (
        run
        for name in ("lower-rate", "llava-mole-1-2-1")
        for run in runs_of(experiments, "paper", [name], seeds=(42,))
    )
    assert row.folder.name == "llava-mole-1-2-1"
    assert mine.folder.name == mine.name
    assert mine.config.output_dir == str(mine.folder)
    assert mine.hash != row.hash


def test_identity_is_what_can_change_the_result(experiments):
    base = experiments / "tiny/finetune.yaml"
    values = yaml.safe_load(base.read_text())

    def hashes(**changes):
        new = {**values, **changes}
        base.write_text(yaml.safe_dump(new))
        names = ["llava-mix-1-1-1", "llava-mole-1-1-1", "llava-mole-dense-k2"]
        return [run.hash for run in runs_of(experiments, "tiny", names)]

    before = hashes()
    assert len(set(before)) == 3
    assert hashes(train={**values["train"], "logging_steps": 7, "save_steps": 3}) == before
    assert hashes(output_dir="another") == before
    lora, mole, dense = hashes(adapter={**values["adapter"], "balance_coef": 0.5})
    assert (lora, dense) == (before[0], before[2])
    assert mole != before[1]
    assert not set(hashes(train={**values["train"], "learning_rate": 0.1})) & set(before)
    base.write_text(yaml.safe_dump(values))
    scale = yaml.safe_load((experiments / "tiny.yaml").read_text())
    scale["benchmarks"][0]["limit"] = 3
    change(experiments / "tiny.yaml", benchmarks=scale["benchmarks"])
    assert not set(hashes()) & set(before)


def test_a_row_that_names_further_domains_has_their_data_and_is_asked_about_them(tmp_path):
    experiments = write_beyond(tmp_path)
    (six,) = runs_of(experiments, "tiny", ["llava-mole-six-k3"])
    drawn = six.config.data.drawn().domains
    assert set(drawn) == {*DOMAINS, *MORE}
    assert drawn["document-short"].datasets[0].name == "document-short"
    # The scale's own come first.
    assert [set(six.columns[:3]), set(six.columns[3:])] == [set(DOMAINS), set(MORE)]
    assert [asked.max_new_tokens for asked in six.asked] == [None] * 3 + [4] * 3
    (single,) = runs_of(experiments, "tiny", ["llava-document-short"])
    assert list(single.config.data.drawn().domains) == ["document-short"]
    assert single.columns == six.columns
    # Whoever does not name them stays what it was.
    usual = write_experiments(tmp_path / "usual")
    (row,) = runs_of(experiments, "tiny", ["llava-mole-1-1-1"])
    (before,) = runs_of(usual, "tiny", ["llava-mole-1-1-1"])
    assert (row.columns, len(row.asked)) == (before.columns, 3)
    assert set(summary(row)["lambda"]) == set(DOMAINS)
    change(experiments / "tiny.yaml", more={})
    (again,) = runs_of(experiments, "tiny", ["llava-mole-1-1-1"])
    assert again.hash == row.hash


def test_the_committed_results_are_the_shipped_rows_own():
    """A change of what a run is would leave them all out."""
    rows, scale = read_rows(EXPERIMENTS), read_scale(EXPERIMENTS, "tiny")
    store = Store(EXPERIMENTS.parents[1] / "docs/study/results.jsonl", "tiny")
    selected = select(rows, names=load(EXPERIMENTS / "claims.yaml").only(["headline"]).rows())
    runs = resolve_runs(scale, rows, selected, scale.seeds)
    assert len(runs) == 56
    assert all(store.get(run) is not None for run in runs)


def test_seeds_are_runs_of_their_own(experiments):
    runs = runs_of(experiments, "tiny", ["llava-mix-1-1-1"], seeds=(0, 5))
    assert [run.config.seed for run in runs] == [0, 5]
    assert len({run.hash for run in runs}) == 2


def test_ranks_follow_the_one_that_stands_for_32(experiments):
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    config = run_config(scale, find(rows, "llava-mix-1-1-r96"))
    assert (config.adapter.type, config.adapter.r, config.adapter.lora_alpha) == ("lora", 12, 24)
    config = run_config(scale, find(rows, "llava-mix-equal-k16"))
    assert config.adapter.r == 4
    assert set(config.adapter.rank_pattern.values()) == {64}
    assert set(config.adapter.alpha_pattern.values()) == {128}
    # What the row does not say is the scale's.
    config = run_config(scale, find(rows, "llava-mole-k5"))
    assert (config.adapter.num_experts, config.adapter.gate_scaling) == (5, "none")
    assert run_config(scale, find(rows, "llava-mole-dense-k2")).adapter.gate_scaling == "none"


def test_epochs_and_overrides_are_the_scales(tmp_path):
    experiments = write_experiments(
        tmp_path, epochs=2.5, overrides=["train.learning_rate=0.5", "train.warmup_steps=1"]
    )
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    train = run_config(scale, find(rows, "llava-mix-x2-1-1-1")).train
    assert (train.num_train_epochs, train.learning_rate, train.warmup_steps) == (5.0, 0.5, 1)


def test_one_name_for_two_runs_is_refused(experiments):
    file = experiments / "controls/llava-mix-1-1-1.yaml"
    text = (experiments / "table2/llava-mix-1-1-1.yaml").read_text()
    file.write_text(text.replace("num_train_epochs: 1", "num_train_epochs: 3"))
    with pytest.raises(ValueError, match=r"controls/llava-mix-1-1-1\.yaml: another table has"):
        runs_of(experiments, "tiny", ["llava-mix-1-1-1"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "small"}, "its name is 'small'; call it 'tiny'"),
        ({"processes": 0}, "processes is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"seeds": []}, "must each name one at least"),
        ({"put_on": "tiny/absent.yaml"}, r"absent\.yaml: No such file"),
        ({"shown": ["general"]}, "column 'general' stands twice"),
        ({"stage_1": "tiny/absent.yaml"}, r"absent\.yaml: No such file"),
        ({"more": {"general": NEW}}, "domain 'general' stands in columns and in more"),
        ({"more": {"new": {**NEW, "columns": ["general"]}}}, "column 'general' stands twice"),
        ({"rank32": 4}, "did you mean 'rank_32'"),
    ],
)
def test_a_scale_that_cannot_be_is_refused(experiments, values, message):
    change(experiments / "tiny.yaml", **values)
    with pytest.raises(ConfigError, match=message):
        runs_of(experiments, "tiny", everything=True)


def test_a_rank_that_becomes_no_whole_number_leaves_its_row_out_alone(experiments):
    before = runs_of(experiments, "tiny", everything=True)
    file = experiments / "controls/llava-mix-equal-k3.yaml"
    file.write_text(file.read_text().replace(" r: 32", " r: 36"))
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    with pytest.raises(NotAtScale, match=r"k3\.yaml: 36 at rank_32 = 4 of scale tiny is no whole"):
        run_config(scale, find(rows, "llava-mix-equal-k3"))
    left_out = {}
    runs = resolve_runs(scale, rows, rows, (0,), left_out=left_out)
    assert {run.hash for run in before} - {run.hash for run in runs} == {
        run.hash for run in before if run.rows == ("llava-mix-equal-k3",)
    }
    assert "36 at rank_32" in left_out["llava-mix-equal-k3"].reason
    # Of what was not asked for nothing is said.
    left_out = {}
    resolve_runs(scale, rows, [find(rows, "llava-mix-1-1-1")], (0,), left_out=left_out)
    assert left_out == {}


def test_rates_follow_the_scales_own_as_ranks_do(experiments):
    change(experiments / "tiny/finetune.yaml", train={"learning_rate": 3e-3, "router_lr": 9e-3})
    folder = experiments / "mine"
    folder.mkdir()
    base = "base: ../table2/llava-mole-1-1-1.yaml\ntrain: "
    for name, rates in {"half": "learning_rate: 1.0e-5", "router": "router_lr: 4.0e-5"}.items():
        (folder / f"{name}.yaml").write_text(f"{base}{{{rates}}}\n")
    rows = read_rows(experiments)

    def rates(name, scale):
        train = run_config(read_scale(experiments, scale), find(rows, name)).train
        return train.learning_rate, train.router_lr

    assert rates("llava-mole-1-1-1", "tiny") == (3e-3, 9e-3)
    assert rates("half", "tiny") == (1.5e-3, 9e-3)
    assert rates("router", "tiny") == (3e-3, 1.8e-2)
    assert rates("half", "paper") == (1e-5, None)
    change(experiments / "tiny/finetune.yaml", train={"learning_rate": 3e-3})
    assert rates("router", "tiny") == (3e-3, 6e-3)


@pytest.mark.parametrize("name", ["paper", "small", "tiny"])
def test_every_shipped_row_fits_every_shipped_scale_or_is_left_out_with_a_reason(name):
    rows, scale = read_rows(EXPERIMENTS), read_scale(EXPERIMENTS, name)
    left_out = {}
    found = resolve_runs(scale, rows, rows, scale.seeds[:1], left_out=left_out)
    frozen = [run for run in found if "llava-mix-frozen" in run.rows]
    assert frozen[0].config.train.freeze_mm_mlp_adapter
    assert frozen[0].config.train.mm_projector_lr is None
    trained = {item.row.name for item in rows if item.row.kind == "trained"}
    assert {row for run in found for row in run.rows} >= trained - set(left_out)
    assert not set(left_out) & {item.row.name for item in rows if item.row.table in "2345"}


def test_an_unknown_scale_is_said(experiments):
    with pytest.raises(ConfigError, match=r"--scale tny: .*did you mean 'tiny'"):
        read_scale(experiments, "tny")


def test_a_delta_that_does_not_fit_the_base_names_both(experiments):
    file = experiments / "controls/llava-mix-equal-k3.yaml"
    file.write_text(file.read_text().replace("lora_alpha: 64", "lora_alpha: 64\n  rnk: 1"))
    with pytest.raises(ConfigError, match=r"equal-k3\.yaml on .*unknown key 'adapter.rnk'"):
        runs_of(experiments, "tiny", everything=True)
