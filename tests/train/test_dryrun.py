"""The plan of the shipped 7B configs: exact counts, no network, no data."""

import dataclasses
from pathlib import Path

import pytest

from llava_mole.config import load
from llava_mole.train import dryrun
from llava_mole.train.config import Deviation, RunConfig
from tests.train.ranks import launch, write_config
from tests.train.tiny_run import run_config, run_values

CONFIGS = Path(__file__).parents[2] / "configs"


def plan(name, ranks=64, *overrides):
    return dryrun.plan(load(RunConfig, CONFIGS / f"{name}.yaml", overrides), ranks)


def test_finetuning_with_mole_at_full_size():
    text = plan("finetune_mole")
    assert "7,063,427,072 parameters in all" in text
    assert "LoRA, experts and routers together: 173,146,112" in text
    assert "multi_modal_projector       20,979,712      20,979,712" in text
    assert "DeepSpeed ZeRO-2, 64 rank(s)" in text
    # 194,125,824 trained parameters x 12 bytes over 64 ranks
    assert "0.03 GiB   194,125,824 x (4 + 4 + 4) B / 64 ranks" in text
    assert "194,125,824 x 4 B / 64 ranks" in text  # gradients, summed in float32
    assert "steps: 52,886 (52,886 an epoch), warm-up 500" in text
    for name, size in (
        ("m3it", "1,600,000"),
        ("sharegpt4v_instruct", "665,000"),
        ("ureader", "1,100,000"),
        ("pathvqa", "19,755"),
    ):
        assert size in text
        assert f"{name}: PUBLISHED count" in text
    (ureader,) = [line.split() for line in text.splitlines() if " ureader  " in line]
    assert ureader[2:6] == ["654,840", "1,100,000", "1", "1,100,000"]
    assert "2.0e-05 -> 2.0e-06" in text
    assert "as printed in Eq. 7-8 (paper)" in text


def test_pretraining_at_full_size():
    text = plan("pretrain")
    assert "7,063,427,072 parameters in all" in text
    assert "LoRA" not in text
    assert "all                         20,979,712   7,063,427,072" in text
    assert (
        "global batch 256 = 64 ranks x 4 samples, packed into rows of at most 4,096 tokens" in text
    )
    assert "4,096 tokens x (32 layers" in text
    assert "steps: 4,867" in text
    assert "1.0e-03 -> 2.0e-05" in text
    assert "5e-2" in text


def test_a_frozen_projector_is_counted_as_frozen_and_has_no_rate():
    text = plan("finetune_mole", 64, "train.freeze_mm_mlp_adapter=true")
    named = [line.split() for line in text.splitlines() if "multi_modal_projector" in line]
    assert named == [["multi_modal_projector", "0", "20,979,712"]]
    assert "LoRA, experts and routers together: 173,146,112" in text
    assert "173,146,112 x 4 B / 64 ranks" in text


def test_weights_and_sharding_follow_the_config():
    text = plan("finetune_lora", 8, "data.domains.document.weight=2", "train.deepspeed=null")
    assert "2,200,000" in text
    assert "no sharding, 8 rank(s)" in text
    # r (d_in + d_out) of q, k, v, o, gate, up and down in 32 layers at r = 32
    assert "LoRA, experts and routers together: 79,953,920" in text


def test_the_layout_is_said_and_decides_the_memory():
    padded = ("data.packing=false", "train.per_device_train_batch_size=8")
    text = plan("finetune_mole", 8, *padded)
    assert "global batch 64 = 8 ranks x 8 samples, micro-batches of 8 samples, padded" in text
    assert "32,768 tokens x (32 layers" in text
    text = plan("finetune_mole", 8, *padded, "data.group_by_modality_length=true")
    assert "grouped by modality and length" in text
    text = plan("finetune_mole", 8, "data.packing_length=6000")
    assert "6,000 tokens x (32 layers" in text


def test_recomputed_layers_keep_their_input_alone():
    checkpointing = ("train.gradient_checkpointing=true",)
    text = plan("finetune_mole", 8, *checkpointing)
    assert "(32 x D + 1 x (8 D + 4 F))" in text
    text = plan("finetune_mole", 8, *checkpointing, "train.gradient_checkpointing_every=3")
    assert "(11 x D + 22 x (8 D + 4 F))" in text


def test_domains_that_are_not_drawn_need_no_data():
    text = plan("experiments/table2/llava-med-0-0-1", 8)
    assert "m3it" not in text
    assert "steps: 308" in text
    assert "NOTE: 500 warm-up steps are all of the 308 steps" in text


def test_a_ratio_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="no multiple of 3 ranks"):
        plan("pretrain", 3)


@pytest.mark.parametrize("ranks", [0, -2])
def test_fewer_ranks_than_one_are_an_error(ranks):
    with pytest.raises(ValueError, match=r"--ranks is .*; it must be at least 1"):
        plan("finetune_mole", ranks)


def test_data_that_is_there_is_counted(tmp_path):
    config = run_config(tmp_path)
    text = dryrun.plan(config, 1)
    assert "PUBLISHED" not in text
    assert "56" in text
    assert "steps: 4 (7 an epoch)" in text


def test_data_of_unknown_size_is_said(tmp_path):
    config = run_config(tmp_path)
    config.data.domains["general"].datasets[0].path = str(tmp_path / "absent.json")
    text = dryrun.plan(config, 1)
    assert "squares: no file and no published size" in text
    assert "steps: unknown" in text


def test_a_deviation_must_name_a_key(tmp_path):
    config = dataclasses.replace(
        run_config(tmp_path), deviations=[Deviation("train.learning_rat", None, "x")]
    )
    with pytest.raises(ValueError, match=r"no key 'train\.learning_rat'"):
        dryrun.plan(config, 1)


def test_the_command_prints_the_plan_and_names_a_wrong_key(tmp_path):
    config = write_config(tmp_path, run_values(tmp_path))
    done = launch(config, 1, "--dry-run", "--ranks", "2", "train.max_steps=3", torchrun=False)
    assert done.returncode == 0, done.stderr
    assert "global batch 8 = 2 ranks x 4 samples, micro-batches of 4 samples" in done.stdout
    assert not (tmp_path / "run").exists()
    done = launch(config, 1, "--dry-run", "train.max_step=3", torchrun=False)
    assert done.returncode == 2
    assert "did you mean 'max_steps'?" in done.stderr
