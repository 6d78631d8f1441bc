"""``llava-mole eval`` on a tiny run, from published folders to reports."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from llava_mole import generate
from llava_mole.cli.main import main
from llava_mole.eval.benchmarks import BENCHMARKS
from llava_mole.eval.report.summary import paper_row
from llava_mole.model import load_run
from tests import tiny
from tests.cli.tiny_mole import write_run, write_set
from tests.eval import published
from tests.train.ranks import REPOSITORY, environment

QUESTIONS = 5
ADAPTER = "adapter_model.safetensors"
PAPERS = ("ehub", "chartqa", "docvqa", "pathvqa")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, all benchmarks, and a set of one's own with images of five colours."""
    folder = tmp_path_factory.mktemp("eval")
    write_run(folder)
    published.everything(folder / "data")
    write_set(folder)
    for name in ("general", "document", "biomedicine"):
        write_set(folder / "quickstart" / name).rename(folder / "quickstart" / name / "test.jsonl")
    return folder


def run(*words) -> int:
    return main(["eval", *(str(word) for word in words)])


def model_words(folder, *more):
    return ["--model-path", folder / "run", "--device", "cpu", "--max-new-tokens", "4", *more]


def results(output):
    return json.loads((output / "results.json").read_text())["benchmarks"]


def test_the_papers_benchmarks_from_published_folders_to_reports(folder, tmp_path, capsys):
    words = ["--benchmarks", *PAPERS, "--data", folder / "data", "--output", tmp_path]
    assert run(*words, *model_words(folder)) == 0
    found = results(tmp_path)
    assert {name: entry["questions"] for name, entry in found.items()} == {
        "ehub": 15, "chartqa": 4, "docvqa": 3, "pathvqa": 6,
    }  # fmt: skip
    out = capsys.readouterr().out
    for column in ("All", "VR", "VP", "VKA", "VC", "OH", "ChartQA", "DocQA", "Open", "Closed"):
        assert f"| {column} " in out
    report = (tmp_path / "report.md").read_text()
    index = (tmp_path / "report.html").read_text()
    for name in PAPERS:
        assert BENCHMARKS[name].title in report
        assert f'href="{name}.html"' in index
        assert (tmp_path / f"{name}.html").stat().st_size > 10_000
        lines = (tmp_path / name / "answers.jsonl").read_text().splitlines()
        assert len(lines) == found[name]["questions"]
    # Nothing here is the paper's, and nothing says so.
    assert "paper, Table" not in report

    # Scored once more from the answers alone: the same figures.
    pairs = [f"{name}={tmp_path / name / 'answers.jsonl'}" for name in PAPERS]
    again = tmp_path / "again"
    assert run(*words[:-1], again, "--predictions", *pairs) == 0
    for name in PAPERS:
        assert results(again)[name]["lines"] == found[name]["lines"]


def test_answers_are_the_models_own(folder, tmp_path):
    words = ["--benchmarks", f"mine={folder / 'set.jsonl'}", "--output", tmp_path]
    assert run(*words, *model_words(folder, "--batch-size", "2")) == 0
    model, processor = load_run(folder / "run")
    rows = [json.loads(line) for line in (tmp_path / "mine/answers.jsonl").read_text().splitlines()]
    for index, row in enumerate(rows):
        image = Image.open(folder / f"{index}.png").convert("RGB")
        turns = [{"role": "user", "content": "<image>\nWhat?"}]
        assert row["prediction"] == generate.answer(
            model, processor, image, turns, max_new_tokens=4
        )


def test_baselines_of_the_quickstarts_domains(folder, tmp_path, capsys):
    words = ["--benchmarks", "general", "document", "--data", folder / "quickstart"]
    words += ["--training", f"general={folder / 'set.jsonl'}", "--shuffle-images"]
    assert run(*words, *model_words(folder, "--output", tmp_path)) == 0
    found = results(tmp_path)
    assert set(found["general"]["baselines"]) == {"majority_answer", "shuffled_images"}
    assert found["general"]["baselines"]["majority_answer"]["value"] == 60
    assert set(found["document"]["baselines"]) == {"shuffled_images"}
    assert "majority answer" in capsys.readouterr().out


def test_the_papers_row_stands_beside_a_run_that_is_one(folder, tmp_path):
    config = {
        "stage": "finetune",
        "data": {"domains": {name: {} for name in ("general", "document", "biomedicine")}},
        "adapter": {"type": "mole", "num_experts": 3, "r": 32},
    }
    like = write_run(tmp_path, "like", **config)
    words = ["--benchmarks", "pathvqa", "--data", folder / "data", "--model-path", like]
    # The size decides: a tiny model with the paper's settings is not the paper's.
    assert run(*words, "--device", "cpu", "--max-new-tokens", "1") == 0
    assert "paper, Table" not in (like / "eval" / "report.md").read_text()
    text = (like / "config.yaml").read_text()
    paper_size = "language_model: lmsys/vicuna-7b-v1.5\n  vision_tower: ViT-L-14-336-quickgelu"
    (like / "config.yaml").write_text(text.replace("vision_tower: tiny-vit", paper_size))
    assert paper_row(str(like)).place == "paper, Table 2 row 13"
    assert paper_row(str(like / "checkpoint-5")).place == "paper, Table 2 row 13"
    assert paper_row(None) is None


def test_two_ranks_give_the_file_of_one(folder, tmp_path):
    words = ["--benchmarks", "ehub", "--data", str(folder / "data"), "--batch-size", "2"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(*words, *model_words(folder, "--output", one)) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "llava_mole.cli.main", "eval", *words]
    command += [str(word) for word in model_words(folder, "--output", two)]
    done = subprocess.run(
        command, env=environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (two / "ehub/answers.jsonl").read_bytes() == (one / "ehub/answers.jsonl").read_bytes()
    assert results(two)["ehub"]["lines"] == results(one)["ehub"]["lines"]
    assert done.stdout.count("Tiny LVLM-eHub (ehub)") == 1


def test_answers_of_another_model_are_not_taken_for_this_ones(folder, tmp_path, capsys):
    words = ["--benchmarks", f"mine={folder / 'set.jsonl'}", "--output", tmp_path / "out"]
    words += ["--device", "cpu", "--max-new-tokens", "2", "--model-path"]
    run_dir = tmp_path / "run"
    shutil.copytree(folder / "run", run_dir)
    assert run(*words, run_dir) == 0
    answers = (tmp_path / "out/mine/answers.jsonl").read_bytes()
    assert run(*words, run_dir) == 0
    weights = load_file(run_dir / ADAPTER)
    save_file({key: value + 1 for key, value in weights.items()}, run_dir / ADAPTER)
    assert run(*words, run_dir) == 2
    assert "other settings (weights)" in capsys.readouterr().err
    assert (tmp_path / "out/mine/answers.jsonl").read_bytes() == answers


def test_a_missing_image_stops_before_the_model_or_counts(folder, tmp_path, capsys):
    data = tmp_path / "data"
    published.pathvqa(data)
    (data / "pvqa/images/test/test_0001.jpg").unlink()
    words = ["--benchmarks", "pathvqa", "--data", data, "--output", tmp_path / "out"]
    assert run(*words, "--model-path", tmp_path / "nowhere") == 2
    assert "1 of 2 images can't be opened" in capsys.readouterr().err
    assert run(*words, *model_words(folder, "--on-bad-image", "count")) == 0
    entry = results(tmp_path / "out")["pathvqa"]
    assert (entry["questions"], entry["not_asked"]) == (6, 3)
    assert "test_0001.jpg" in entry["failed"][0]["error"]
    assert sum(line["questions"] for line in entry["lines"]) == 6
    out = capsys.readouterr().out
    assert "3 question(s) could not be asked and count as 0" in out
    assert "not asked" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--benchmarks", "mme"], "there are ehub, chartqa, docvqa, pathvqa"),
        (["--benchmarks", "ehub"], "give the folder that holds it with --data"),
        (["--benchmarks", "ehub", "--data", "{tmp}"], "not in the published layout"),
        (["--benchmarks", "ehub", "--data", "{tmp}/no"], "is not there"),
        (["--benchmarks", "a=nowhere.jsonl"], "nowhere.jsonl is not there"),
        (["--benchmarks", "a={set}", "a={set}"], "'a' is named twice"),
        (["--benchmarks", "../a={set}"], "the name not a path"),
        (["--benchmarks", "a={set}", "--training", "b={set}"], "--benchmarks does not name it"),
        (["--benchmarks", "a={set}", "--batch-size", "0"], "--batch-size"),
        (["--benchmarks", "a={set}", "--metric", "bleu"], "choose one of exact_match"),
        (["--benchmarks", "ehub", "--data", "{data}", "--metric", "anls"], "sets of your own"),
        (["--benchmarks", "a={bad}"], "bad.jsonl:1"),
        (["--benchmarks", "report={set}"], "the report's own"),
        (["--benchmarks", "a={set}", "--conv-mode", "plain"], "leaves questions out"),
        (["--benchmarks", "a={set}", "--device", "abacus"], "--device"),
        (["--benchmarks", "a={set}", "--device", "cuda:99"], "GPUs"),
        (["--benchmarks", "a={one}", "--shuffle-images"], "one image; shuffling"),
        (["--benchmarks", "a={set}", "--data", "a={set}"], "a set of your own is --benchmarks"),
        (["--benchmarks", "a={set}", "--predictions", "p.jsonl"], "either --model-path or"),
    ],
)
def test_errors_name_what_is_wrong(folder, tmp_path, capsys, words, expected):
    bad, one = tmp_path / "bad.jsonl", tmp_path / "one.jsonl"
    bad.write_text('{"id": "1", "conversations": []}\n')
    shutil.copy(folder / "0.png", tmp_path)
    one.write_text((folder / "set.jsonl").read_text().splitlines()[0] + "\n")
    places = {"set": folder / "set.jsonl", "bad": bad, "one": one, "tmp": tmp_path}
    words = [word.format(**places, data=folder / "data") for word in words]
    assert run(*words, "--model-path", folder / "run", "--output", tmp_path / "out") == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/answers*")), "it asked before it looked"


def test_predictions_must_fit_before_anything_is_written(folder, tmp_path, capsys):
    published.dump_lines(tmp_path / "p.jsonl", [{"id": "test-1", "prediction": "x"}])
    words = ["--benchmarks", "pathvqa", "--data", folder / "data"]
    words += ["--predictions", tmp_path / "p.jsonl"]
    assert run(*words) == 2
    assert "needs --output" in capsys.readouterr().err
    assert run(*words, "--output", tmp_path / "out") == 2
    assert "5 of 6 questions have no answer, e.g. 'test-2'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_without_processor_is_refused(folder, tmp_path, capsys):
    bare = tmp_path / "bare"
    tiny.tiny_llava().save_pretrained(bare)
    words = ["--benchmarks", f"a={folder / 'set.jsonl'}", "--device", "cpu", "--model-path", bare]
    assert run(*words) == 2
    assert "no LLaVA processor can be read" in capsys.readouterr().err


def test_a_wrong_model_path_leaves_no_folder_behind(folder, tmp_path, capsys):
    missing = tmp_path / "no_such_run"
    assert run("--benchmarks", f"mine={folder / 'set.jsonl'}", "--model-path", missing) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not missing.exists()


def test_help_has_examples():
    done = subprocess.run(
        [sys.executable, "-m", "llava_mole.cli.main", "eval", "--help"],
        env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for piece in ("--benchmarks ehub chartqa docvqa pathvqa --data", "--predictions", "authors"):
        assert piece in done.stdout
