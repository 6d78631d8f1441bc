"""Runs written down for several GPUs: shell scripts of the repository's own launch scripts."""

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path

from llava_mole.config import dump
from llava_mole.files import replace_text
from llava_mole.reproduce.line import EVAL
from llava_mole.reproduce.runs import Run, stages_of
from llava_mole.reproduce.scales import Scale

GPUS_A_NODE = 8
_SCORE = """\
gpus="${NPROC_PER_NODE:-${SLURM_GPUS_ON_NODE:-$(nvidia-smi --list-gpus | wc -l)}}"
python="${PYTHON:-python3}"
if [[ -z "${PYTHON:-}" && -x .venv/bin/python ]]; then python=.venv/bin/python; fi
score() {  # RUN [flag ...]
    "$python" -m torch.distributed.run --nproc-per-node "$gpus" -m llava_mole.cli.main eval \\
        --model-path "$@"
}
measure() {  # flags; on one GPU
    "$python" -m llava_mole.cli.main reproduce --measure "$@"
}
"""


def train_command(run: Run, scale: Scale, configs: Path | None) -> str:
    """The line that trains a run, by the repository's own script.

    Args:
        run: with a config.
        scale: of it.
        configs: folder that holds the run's own config; None where its row's file is run as it is.
    """
    kind = "mole" if run.config.adapter.type == "mole" else "lora"
    config = run.file if configs is None else configs / f"{run.name}.yaml"
    names = f"CONFIG={shlex.quote(str(config))} OUTPUT_DIR={shlex.quote(str(run.folder))}"
    over = [*scale.overrides, f"seed={run.seed}"] if configs is None else []
    return f"{names} {shlex.join(['bash', f'scripts/finetune_{kind}.sh', *over])}"


def score_commands(run: Run, scale: Scale) -> list[str]:
    """The lines that ask a run everything, as the scripts' ``score`` takes them."""
    lines = []
    ordered = sorted(run.asked, key=lambda asked: (asked.limit or 0, asked.style))
    for (limit, style, suffix, longest), group in itertools.groupby(
        ordered, key=lambda asked: (asked.limit, asked.style, asked.suffix, asked.max_new_tokens)
    ):
        words = ["score", run.model_path, "--output", str(run.folder / EVAL), "--benchmarks"]
        words += [f"{asked.name}={asked.path}" for asked in group]
        words += ["--batch-size", str(scale.batch_size)]
        words += ["--limit", str(limit)] if limit is not None else []
        words += ["--prompt-style", style] if style != "llava" else []
        words += ["--suffix", suffix] if suffix else []
        words += ["--max-new-tokens", str(longest)] if longest is not None else []
        lines.append(shlex.join(words))
    return lines


def measure_command(run: Run, scale: Scale, experiments: Path, output: Path | None) -> str:
    """The line that notes what results say beside scores, as the scripts' ``measure`` takes it."""
    words = ["measure", "--scale", scale.name, "--rows", run.rows[0], "--seeds", str(run.seed)]
    words += ["--experiments", str(experiments)]
    words += ["--output", str(output)] if output else []
    return shlex.join(words)


def commands(
    run: Run, scale: Scale, configs: Path | None, experiments: Path, output: Path | None
) -> list[str]:
    """All lines of a run, in order: trained, measured, asked.

    Args:
        run: of them.
        scale: of the run.
        configs: see `train_command`.
        experiments: folder that row and scale were read from.
        output: of the run; None for the scale's.
    """
    asked = score_commands(run, scale)
    if run.config is None:
        return asked
    # Measured first: once it is asked everything, a run counts as done.
    return [
        train_command(run, scale, configs),
        measure_command(run, scale, experiments, output),
        *asked,
    ]


def write(
    runs: Sequence[Run], scale: Scale, how: str, experiments: Path, output: Path | None = None
) -> Path:
    """Writes the script that does ``runs``, into its output's ``launch``.

    Args:
        runs: those that are left to do.
        scale: of them.
        how: ``slurm`` (an array, a task a run), ``hostfile`` or ``torchrun`` (one run after the
            other).
        experiments: folder that rows and scale were read from.
        output: of the runs, None for the scale's; takes the script, and configs where rows' files
            are not run as they are.

    Returns:
        The script.

    Raises:
        ValueError: a run whose stage 1 is its own, which only this machine's processes do first.
    """
    if named := [name for _, names in stages_of(runs) for name in names]:
        raise ValueError(
            f"{', '.join(named)}: with a stage 1 of their own, which is trained first and once; "
            "run them with --launch local, and the others with --rows or --table"
        )
    folder, configs = (output or Path(scale.output)) / "launch", None
    if scale.put_on is not None:
        configs = folder / "configs"
        configs.mkdir(parents=True, exist_ok=True)
        for run in runs:
            if run.config is not None:
                dump(run.config, configs / f"{run.name}.yaml")
    bodies = []
    for number, run in enumerate(runs):
        lines = commands(run, scale, configs, experiments, output)
        body = " &&\n    ".join(lines)
        bodies.append(f"run_{number}() {{  # {run.name}: {', '.join(run.rows)}\n    {body}\n}}\n")
    text = {"slurm": _slurm, "hostfile": _hostfile, "torchrun": _torchrun}[how](
        bodies, scale, folder
    )
    path = folder / {"slurm": "reproduce.sbatch"}.get(how, f"{how}.sh")
    replace_text(path, text)
    return path


def _slurm(bodies: Sequence[str], scale: Scale, folder: Path) -> str:
    gpus = min(scale.ranks, GPUS_A_NODE)
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"#SBATCH --job-name=llava-mole-{scale.name}",
            f"#SBATCH --array=0-{len(bodies) - 1}",
            f"#SBATCH --nodes={-(-scale.ranks // gpus)}",
            f"#SBATCH --gres=gpu:{gpus}",
            "#SBATCH --ntasks-per-node=1",
            f'#SBATCH --output="{folder}/%A_%a.log"',
            "# From the repository:  sbatch THIS_FILE",
            "# A task is a run: trained on all nodes, then asked on the first. Submitted again, it",
            "# goes on where it stopped, and a run that is finished ends at once.",
            "set -euo pipefail",
            'cd "${SLURM_SUBMIT_DIR:-.}"',
            "",
            _SCORE,
            *bodies,
            '"run_${SLURM_ARRAY_TASK_ID:?this is for sbatch}"',
            "",
        ]
    )


def _hostfile(bodies: Sequence[str], scale: Scale, folder: Path) -> str:
    use = [
        "# From the repository, on the first machine:  HOSTFILE=hosts.txt bash THIS_FILE",
        "# Trains on all machines of the DeepSpeed hostfile, asks on this one.",
    ]
    check = [': "${HOSTFILE:?name a DeepSpeed hostfile, HOSTFILE=hosts.txt}"', "export HOSTFILE"]
    return _one_after_the_other(bodies, use, check)


def _torchrun(bodies: Sequence[str], scale: Scale, folder: Path) -> str:
    use = ["# From the repository:  bash THIS_FILE", "# On all GPUs of this machine."]
    return _one_after_the_other(bodies, use, [])


def _one_after_the_other(bodies: Sequence[str], use: Sequence[str], check: Sequence[str]) -> str:
    """Every run in turn; one that fails is named at the end and the others go on."""
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *use,
            "# Started again, it goes on where it stopped, and skips what is finished.",
            "set -uo pipefail",
            # Else an interrupt ends one run and the next begins.
            "trap 'exit 130' INT TERM",
            *check,
            "",
            _SCORE,
            *bodies,
            "failed=()",
            f"for number in {' '.join(map(str, range(len(bodies))))}; do",
            '    "run_$number" || failed+=("run_$number")',
            "done",
            'if ((${#failed[@]})); then echo "failed: ${failed[*]}" >&2; exit 1; fi',
            "",
        ]
    )
