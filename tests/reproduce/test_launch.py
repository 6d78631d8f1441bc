"""The scripts that --launch writes: valid shell, and the right commands in the right order."""

import os
import shlex
import subprocess
from dataclasses import replace

import pytest

from llava_mole.config import load
from llava_mole.reproduce.launch import score_commands, train_command, write
from llava_mole.reproduce.rows import read_rows
from llava_mole.reproduce.runs import resolve_runs
from llava_mole.reproduce.scales import read_scale
from llava_mole.reproduce.select import select
from llava_mole.train.config import RunConfig
from llava_mole.train.rundir import decisive, resolve
from tests.reproduce.tiny_scale import write_beyond, write_experiments

# Say what they were called with; the run of a name in $FAIL fails.
TRAIN = """#!/usr/bin/env bash
echo "$(basename "$0") $CONFIG $OUTPUT_DIR $*" >> calls.txt
[[ -z "${FAIL:-}" || "$CONFIG" != *"$FAIL"* ]]
"""
PYTHON = '#!/usr/bin/env bash\necho "python $*" >> calls.txt\n'


def world(tmp_path, scale, names):
    experiments = write_experiments(tmp_path)
    rows, chosen = read_rows(experiments), read_scale(experiments, scale)
    selected = select(rows, names=names)
    output = tmp_path / "out put" if scale == "paper" else None
    runs = resolve_runs(chosen, rows, selected, (0,), output)
    return lambda how: write(runs, chosen, how, experiments, output), runs


def call(script, tmp_path, **variables):
    """Runs a script where the repository's are stand-ins; what they were called with."""
    (tmp_path / "scripts").mkdir(exist_ok=True)
    for name, text in (("finetune_lora.sh", TRAIN), ("finetune_mole.sh", TRAIN)):
        (tmp_path / "scripts" / name).write_text(text)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "NPROC_PER_NODE": "2", **variables}
    done = subprocess.run(
        ["bash", str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    calls = tmp_path / "calls.txt"
    lines = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return done, lines


NAMES = ["llava-1.5-official", "llava-mix-1-1-1", "llava-mole-k5"]


@pytest.mark.parametrize("how", ["slurm", "hostfile", "torchrun"])
@pytest.mark.parametrize("scale", ["paper", "tiny"])
def test_what_is_written_is_valid_shell(tmp_path, how, scale):
    written, _ = world(tmp_path, scale, NAMES)
    script = written(how)
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_run_is_trained_and_asked(tmp_path):
    written, runs = world(tmp_path, "paper", NAMES)
    done, calls = call(written("torchrun"), tmp_path)
    assert done.returncode == 0, done.stderr
    official, mix, mole = runs
    rows = tmp_path / "configs/experiments"
    assert len(calls) == 7
    assert "--model-path llava-hf/llava-1.5-7b-hf --output" in calls[0]
    assert calls[1] == (f"finetune_lora.sh {rows}/table2/llava-mix-1-1-1.yaml {mix.folder} seed=0")
    assert calls[2] == (
        "python -m llava_mole.cli.main reproduce --measure --scale paper --rows llava-mix-1-1-1 "
        f"--seeds 0 --experiments {rows} --output {tmp_path}/out put"
    )
    assert calls[3].startswith(
        "python -m torch.distributed.run --nproc-per-node 2 -m llava_mole.cli.main eval "
        f"--model-path {mix.folder} --output {mix.folder}/eval --benchmarks ehub=playground/data"
    )
    assert calls[4].startswith(f"finetune_mole.sh {rows}/table4/llava-mole-k5.yaml {mole.folder}")
    assert official.folder.name == "llava-1.5-official"


def test_what_the_scale_sets_over_every_row_is_told_to_training(tmp_path):
    experiments = write_experiments(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "paper")
    (item,) = select(rows, names=["llava-mix-1-1-1"])
    scale = replace(scale, overrides=["train.max_steps=7", "train.run_name=a b"])
    (run,) = resolve_runs(scale, rows, [item], (3,))
    command = shlex.split(train_command(run, scale, None))
    script = command.index("scripts/finetune_lora.sh")
    config = load(RunConfig, run.file, command[script + 1 :])
    assert (config.train.max_steps, config.train.run_name, config.seed) == (7, "a b", 3)
    assert decisive(resolve(config)) == decisive(run.config)


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path):
    written, _ = world(tmp_path, "paper", NAMES)
    script = written("torchrun")
    done, calls = call(script, tmp_path, FAIL="llava-mix-1-1-1")
    assert done.returncode == 1
    assert "failed: run_1" in done.stderr
    # It was neither measured nor asked.
    assert len(calls) == 5


def test_a_task_of_the_array_is_a_run(tmp_path):
    written, _ = world(tmp_path, "paper", NAMES)
    script = written("slurm")
    text = script.read_text()
    assert "#SBATCH --array=0-2\n" in text
    assert "#SBATCH --nodes=8\n#SBATCH --gres=gpu:8\n" in text
    done, calls = call(script, tmp_path, SLURM_ARRAY_TASK_ID="2")
    assert done.returncode == 0, done.stderr
    assert len(calls) == 3
    assert "llava-mole-k5" in calls[0]
    done, calls = call(script, tmp_path)
    assert done.returncode != 0
    assert "this is for sbatch" in done.stderr


def test_a_hostfile_is_asked_for(tmp_path):
    written, _ = world(tmp_path, "paper", NAMES[1:2])
    script = written("hostfile")
    done, calls = call(script, tmp_path)
    assert done.returncode != 0
    assert "HOSTFILE=hosts.txt" in done.stderr
    done, calls = call(script, tmp_path, HOSTFILE="hosts.txt")
    assert done.returncode == 0
    assert len(calls) == 3


def test_smaller_scales_get_configs_of_their_own(tmp_path):
    written, runs = world(tmp_path, "tiny", NAMES[1:])
    script = written("torchrun")
    done, calls = call(script, tmp_path)
    assert done.returncode == 0, done.stderr
    for run, line in zip(runs, calls[::3], strict=True):
        config = tmp_path / "out/launch/configs" / f"{run.name}.yaml"
        assert str(config) in line
        assert load(RunConfig, config) == run.config
    # In the scale's own place, which the command finds by itself.
    assert "--output" not in calls[1]
    assert calls[2].endswith("--batch-size 4 --limit 4")


def test_a_longest_answer_is_told_to_eval(tmp_path):
    experiments = write_beyond(tmp_path)
    rows, scale = read_rows(experiments), read_scale(experiments, "tiny")
    selected = select(rows, names=["llava-mix-six"])
    (run,) = resolve_runs(scale, rows, selected, (0,))
    usual, more = score_commands(run, scale)
    assert "--max-new-tokens" not in usual
    assert "general-short=" in more
    assert more.endswith("--limit 4 --max-new-tokens 4")
