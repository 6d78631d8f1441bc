"""The launch scripts, with a stand-in for Python that prints what it was started with."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = ("pretrain", "finetune_mole", "finetune_lora")
MACHINE = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "HOSTFILE", "NPROC_PER_NODE")


@pytest.fixture
def start(tmp_path):
    """Runs a script and returns the command line that it ended in."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    for name, said in (("python", "python"), ("deepspeed", "deepspeed"), ("srun", "srun")):
        tool = python.parent / name
        tool.write_text(f'#!/usr/bin/env bash\necho "{said} $*"\n')
        tool.chmod(0o755)
    scontrol = python.parent / "scontrol"
    scontrol.write_text("#!/usr/bin/env bash\nprintf 'node7\\nnode8\\n'\n")
    scontrol.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if k not in MACHINE and "SLURM" not in k}

    def run(name, *arguments, **variables):
        environment = {
            **clean,
            "PYTHON": str(python),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            **variables,
        }
        command = ["bash", str(REPOSITORY / "scripts" / f"{name}.sh"), *arguments]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_machine(start, name):
    said = start(name, "train.learning_rate=1e-4", NPROC_PER_NODE="8")
    assert said.startswith("python -m torch.distributed.run --nnodes 1 --nproc-per-node 8")
    assert f"-m llava_mole.cli.main train --config configs/{name}.yaml" in said
    assert said.endswith("train.learning_rate=1e-4\n")


def test_one_rank_a_visible_gpu(start, tmp_path):
    smi = tmp_path / "bin" / "nvidia-smi"
    lines = ["GPU 0: A (UUID: x)", "  MIG 1g.5gb Device 0: (UUID: y)", "GPU 1: A (UUID: z)"]
    smi.write_text("#!/usr/bin/env bash\n" + "".join(f"echo '{line}'\n" for line in lines))
    smi.chmod(0o755)
    assert "--nproc-per-node 2 " in start("pretrain", CUDA_VISIBLE_DEVICES="")
    assert "--nproc-per-node 3 " in start("pretrain", CUDA_VISIBLE_DEVICES="0,4,5")


@pytest.mark.parametrize("name", SCRIPTS)
def test_dry_run_starts_no_ranks(start, name):
    said = start(name, "--dry-run", "seed=1", NNODES="8", NPROC_PER_NODE="8", HOSTFILE="hosts")
    assert "torch.distributed" not in said
    assert "deepspeed" not in said
    assert said.startswith(f"python -m llava_mole.cli.main train --config configs/{name}.yaml")
    assert "--dry-run" in said
    assert "--ranks 64" in said


def test_several_machines(start):
    said = start(
        "finetune_mole", NNODES="2", NODE_RANK="1", MASTER_ADDR="10.0.0.1", NPROC_PER_NODE="4"
    )
    assert "--nnodes 2 --nproc-per-node 4 --node-rank 1 --master-addr 10.0.0.1" in said


def test_hostfile(start):
    said = start("finetune_mole", HOSTFILE="hosts.txt", MASTER_PORT="1234")
    assert said.startswith("deepspeed --hostfile hosts.txt --no_local_rank --master_port 1234")
    assert "--module llava_mole.cli.main train" in said


def test_slurm_starts_one_launcher_a_machine_then_one_rank_a_gpu(start):
    slurm = {
        "SLURM_JOB_ID": "9",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
    }
    said = start("finetune_lora", "seed=3", **slurm)
    assert said == "srun --ntasks=2 --ntasks-per-node=1 bash scripts/finetune_lora.sh seed=3\n"
    said = start(
        "finetune_lora", LLAVA_MOLE_NODE="1", MASTER_ADDR="node7", SLURM_NODEID="1", **slurm
    )
    assert "--nnodes 2 --nproc-per-node 8 --node-rank 1 --master-addr node7" in said


def test_paths_are_variables_and_flags_come_before_overrides(start):
    said = start(
        "finetune_mole",
        "seed=3",
        "--resume",
        "never",
        "train.max_steps=5",
        OUTPUT_DIR="/runs/a b",
        LANGUAGE_MODEL="/models/vicuna",
        VISION_WEIGHTS="/models/vit.safetensors",
        PROJECTOR="/runs/pretrain",
        DEEPSPEED="configs/deepspeed/zero3.json",
    )
    rest = said.split("configs/finetune_mole.yaml", 1)[1]
    assert rest == (
        " --deepspeed configs/deepspeed/zero3.json --resume never output_dir=/runs/a b "
        "model.language_model=/models/vicuna model.vision_pretrained=/models/vit.safetensors "
        "model.projector=/runs/pretrain seed=3 train.max_steps=5\n"
    )
    assert "train.deepspeed=null" in start("pretrain", DEEPSPEED="none")


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_names_the_variables(start, name):
    said = start(name, "--help")
    for variable in (*MACHINE, "OUTPUT_DIR", "LANGUAGE_MODEL", "PROJECTOR", "DEEPSPEED"):
        assert variable in said
    assert f"scripts/{name}.sh" in said
