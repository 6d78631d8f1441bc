"""``llava-mole reproduce``: what it says before anything is run."""

import json
import subprocess

import pytest

from llava_mole.cli.main import main
from tests.reproduce.tiny_scale import write_experiments


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    return write_experiments(tmp_path_factory.mktemp("cli"))


@pytest.fixture
def reproduce(experiments, tmp_path, capsys):
    """Calls the command with an output of its own; status, stdout and stderr."""

    def call(*words, scale="tiny"):
        places = ["--scale", scale, "--experiments", str(experiments)]
        if not {"--prepare", "--conflicts"} & set(words):
            places += ["--output", str(tmp_path)]
        status = main(["reproduce", *places, *map(str, words)])
        return status, *capsys.readouterr()

    return call


def test_a_plan_runs_nothing(reproduce, tmp_path):
    status, out, _ = reproduce("--all", "--plan")
    assert status == 0
    assert out.startswith("TINY SCALE")
    assert "llava-mole-dense-k2-s1-" in out
    assert "time: not measured" in out
    assert list(tmp_path.iterdir()) == []


def test_a_plan_at_paper_scale_has_cost_and_commands(reproduce):
    status, out, _ = reproduce("--rows", "llava-mole-1-1-1", "--plan", scale="paper")
    assert status == 0
    assert "194,125,824" in out
    assert "left to do: 1,024 A100-hours" in out
    assert "table2/llava-mole-1-1-1.yaml OUTPUT_DIR=" in out
    assert "bash scripts/finetune_mole.sh seed=42" in out


def test_several_tables_and_figures_at_once(reproduce):
    status, out, _ = reproduce("--table", "4", "controls", "--figure", "1", "--status")
    assert status == 0
    assert "llava-mole-k16" in out
    assert "llava-mix-equal-k16" in out
    assert "llava-mix-x2-1-1-1" in out
    # 5 + 10 + 6 rows, two seeds each.
    assert "42 waiting" in out


def test_headline_claims_select_their_rows(reproduce):
    status, out, _ = reproduce("--claims", "headline", "--seeds", "5", "6", "7", "--status")
    assert status == 0
    assert out.count("llava-mix-equal-1-1-1-s") == 3
    assert "llava-mole-k5" not in out


def test_rows_that_the_scale_has_nothing_for_are_named_and_block_nothing(reproduce):
    status, out, err = reproduce("--table", "2", "beyond", "--seeds", "0", "--status")
    assert status == 0
    assert "13 waiting" in out
    assert "note: left out: llava-biomedicine-short, " in err
    assert "data.domains.general-short: scale tiny has no data of this domain; it has " in err
    assert "names no stage_1 that this could change" in err
    assert err.count("note:") == 2
    assert reproduce("--table", "2", "--seeds", "0", "--status")[2] == ""


def test_a_launch_is_written_not_started(reproduce, tmp_path):
    status, out, _ = reproduce("--table", "2", "--launch", "slurm")
    assert status == 0
    script = tmp_path / "launch/reproduce.sbatch"
    assert f"sbatch {script}" in out
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    status, out, _ = reproduce("--table", "2", "--seeds", "0", "--launch", "hostfile")
    assert "13 run(s) written" in out
    assert "HOSTFILE=hosts.txt bash " in out


def test_a_script_says_what_is_not_there_and_that_nothing_submits_it(
    reproduce, tmp_path, monkeypatch
):
    monkeypatch.setattr("shutil.which", lambda name: None)
    words = ("--rows", "llava-mole-k5", "--launch", "slurm", "--submit")
    status, _, err = reproduce(*words, scale="paper")
    assert status == 2
    assert "model.projector: playground/runs/pretrain, for llava-mole-k5" in err
    assert "bash scripts/pretrain.sh" in err
    assert "--submit: there is no sbatch here; on a machine of the cluster that has it" in err
    assert (tmp_path / "launch/reproduce.sbatch").is_file()


@pytest.mark.parametrize("taken", ["out", "out/results.jsonl", "out/report/report.md"])
def test_an_output_that_cant_be_written_is_said_before_anything_runs(tmp_path, capsys, taken):
    experiments = write_experiments(tmp_path)
    if taken == "out":
        (tmp_path / taken).write_text("a file, and no folder")
    else:
        (tmp_path / taken).mkdir(parents=True)
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments), "--rows"]
    assert main([*words, "llava-1.5-1-0-0", "--output", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "error: --output: " in err
    assert str(tmp_path / taken) in err
    assert "Traceback" not in err


def test_the_paper_scale_writes_by_default(reproduce, tmp_path):
    status, _, _ = reproduce("--rows", "llava-mole-k5", scale="paper")
    assert status == 0
    assert (tmp_path / "launch/reproduce.sbatch").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--table", "6"], "--table 6: there are 2, 3, 4, 5, ablations, beyond, controls"),
        (["--table", "2", "--conflicts"], "--conflicts measures the domains of one plain LoRA's"),
        (["--rows", "llava-mole-1-1-1", "--conflicts"], "name it, such as --rows llava-mix-1-1-1"),
        (["--rows", "llava-mix-1-1-1", "--conflicts"], "scale tiny names no file for cosines"),
        (["--rows", "llava-mix-six", "--status"], "llava-mix-six.yaml: data.domains.general-short"),
        (["--figure", "2"], "--figure 2: there are 1, 3"),
        (["--rows", "llava-mole-1-1-11"], "did you mean 'llava-mole-1-1-1"),
        ([], "say what is reproduced"),
        (["--table", "2", "--processes", "0"], "--processes is 0"),
        (["--table", "2", "--submit"], "--submit goes with --launch slurm"),
        (["--table", "2", "--plan", "--launch", "slurm"], "leave it or --plan out"),
        (["--table", "2", "--measure", "--launch", "slurm"], "leave it or --measure out"),
        (["--prepare", "--output", "x"], "--prepare writes where the scale's file says"),
        (["--table", "2", "--conflicts", "--output", "x"], "leave --output out"),
        (["--table", "2", "--seeds", "-1", "--plan"], "seed is -1; it must lie in [0, 4294967295]"),
        (["--table", "2", "--seeds", str(2**32), "--plan"], "seed is 4294967296"),
    ],
)
def test_wrong_words_are_said(reproduce, words, message):
    status, _, err = reproduce(*words)
    assert status == 2
    assert message in err


def test_an_unknown_scale_and_folder_are_said(reproduce, capsys):
    status, _, err = reproduce("--table", "2", scale="papr")
    assert status == 2
    assert "did you mean 'paper'" in err
    assert main(["reproduce", "--scale", "tiny", "--experiments", "absent", "--all"]) == 2
    assert "--experiments absent: no such folder" in capsys.readouterr().err


def test_nothing_to_report_is_said(reproduce, tmp_path):
    status, out, _ = reproduce("--table", "2", "--report")
    assert status == 1
    assert f"no results in {tmp_path / 'results.jsonl'} yet" in out
    assert not (tmp_path / "report").exists()


def test_missing_data_is_named_with_its_rows_before_anything_runs(tmp_path, capsys):
    experiments = write_experiments(tmp_path, prepare="make it so")
    (tmp_path / "data/document/document.json").unlink()
    words = ["reproduce", "--scale", "tiny", "--experiments", str(experiments)]
    assert main([*words, "--rows", "llava-1.5-1-0-0", "llava-mix-1-1-0", "llava-mole-k5"]) == 2
    err = capsys.readouterr().err
    assert "document.json, for llava-mix-1-1-0, llava-mole-k5" in err
    assert "llava-1.5-1-0-0" not in err
    assert "Make it first: make it so" in err
    assert not (tmp_path / "out").exists()


def test_results_of_another_scale_are_refused(reproduce, tmp_path):
    line = {"hash": "0", "scale": "paper", "rows": ["x"], "seed": 0, "config": {}, "scores": {}}
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    status, _, err = reproduce("--table", "2", "--status")
    assert status == 2
    assert "results.jsonl:1: results of scale 'paper' in a file of scale 'tiny'" in err


def test_results_of_another_config_are_named(reproduce, tmp_path):
    line = {
        "hash": "0",
        "scale": "tiny",
        "rows": ["llava-mix-1-1-1"],
        "seed": 0,
        "config": {"lambda": {}},
        "scores": {},
    }
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    status, out, err = reproduce("--table", "2", "--status")
    assert status == 0
    assert "note: llava-mix-1-1-1, seed 0" in err
    assert "results of another config" in err
    assert "26 waiting" in out


def test_the_tiny_scale_alone_can_be_prepared(reproduce):
    status, _, err = reproduce("--prepare", scale="small")
    assert status == 2
    assert "bash scripts/quickstart.sh" in err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    out = capsys.readouterr().out
    assert "llava-mole reproduce --claims headline --scale tiny" in out
