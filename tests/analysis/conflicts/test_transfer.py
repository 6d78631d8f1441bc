"""The transfer matrix from what ``llava-mole eval`` writes."""

import json
import math

import pytest

from llava_mole.analysis.conflicts.transfer import MIX, read_transfer
from llava_mole.analysis.conflicts.transfer_table import transfer_text
from llava_mole.cli.main import main
from tests.cli.tiny_mole import write_set

BENCHMARKS = ("general", "document")
# Answers to five questions of which three are yes: 60, 40, 100 and 0 per cent.
SAID = {
    "general": {"general": ["yes"] * 5, "document": ["no"] * 5},
    "document": {"general": ["maybe"] * 5, "document": ["yes"] * 3 + ["no"] * 2},
    MIX: {"general": ["no"] * 5, "document": ["yes"] * 5},
}


@pytest.fixture
def runs(tmp_path):
    """Folders with the results of files of answers, scored by the command."""
    file = write_set(tmp_path / "data")
    folders = {}
    for name, said in SAID.items():
        folders[name] = tmp_path / name
        words = ["eval", "--benchmarks", *(f"{b}-set={file}" for b in BENCHMARKS), "--predictions"]
        for benchmark in BENCHMARKS:
            answers = tmp_path / f"{name}-{benchmark}.jsonl"
            rows = [{"id": str(i), "prediction": text} for i, text in enumerate(said[benchmark])]
            answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
            words.append(f"{benchmark}-set={answers}")
        assert main([*words, "--output", str(folders[name] / "eval")]) == 0
    return {name: str(folder) for name, folder in folders.items()}


def edit(folder: str, change) -> None:
    file = f"{folder}/eval/results.json"
    with open(file, encoding="utf-8") as stream:
        values = json.load(stream)
    change(values)
    with open(file, "w", encoding="utf-8") as stream:
        json.dump(values, stream)


def test_scores_best_and_losses(runs):
    mix = runs.pop(MIX)
    found = read_transfer(runs, mix)
    assert found.runs == ("general", "document")
    assert found.columns == ("general-set", "document-set")
    values = {name: [e.value for e in row] for name, row in found.scores.items()}
    assert values == {
        "general": pytest.approx([60, 40]),
        "document": pytest.approx([0, 100]),
        MIX: pytest.approx([40, 60]),
    }
    assert found.best == ("general", "document")
    assert [e.value for e in found.loss("general")] == pytest.approx([-20, 20])
    assert [e.value for e in found.loss("document")] == pytest.approx([40, -40])
    # 60 against 100 per cent, whose interval ends at 100.
    one, other = found.scores[MIX][1], found.scores["document"][1]
    assert other.high == pytest.approx(100)
    assert found.loss("document")[1].low == pytest.approx(-40 - (one.value - one.low))
    up = math.hypot(one.high - one.value, other.value - other.low)
    assert found.loss("document")[1].high == pytest.approx(-40 + up)
    text = transfer_text(found)
    assert "60.0" in text
    assert "-20.0" in text
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["mixture_minus_single"]["document"][1]["value"] == pytest.approx(-40)
    assert plain["runs"]["general"] == runs["general"]
    with pytest.raises(ValueError, match="give its run with --mix"):
        read_transfer(runs).loss("general")


def test_the_evaluations_own_folder_will_do(runs):
    runs.pop(MIX)
    there = {name: f"{folder}/eval" for name, folder in runs.items()}
    assert read_transfer(there).scores == read_transfer(runs).scores


def test_a_benchmark_without_total_gives_its_parts(runs):
    def split(values):
        lines = values["benchmarks"]["general-set"]["lines"]
        lines[:] = [{**lines[0], "kind": "part", "name": name} for name in ("Open", "Closed")]

    runs.pop(MIX)
    for folder in runs.values():
        edit(folder, split)
    found = read_transfer(runs)
    assert found.columns == ("general-set Open", "general-set Closed", "document-set")


def test_what_cant_be_compared_is_named(runs, tmp_path):
    mix = runs.pop(MIX)
    with pytest.raises(ValueError, match="takes two runs or more"):
        read_transfer({"general": runs["general"]})
    with pytest.raises(ValueError, match=r"--runs x=.*gone: no eval/results.json there; score it"):
        read_transfer({**runs, "x": str(tmp_path / "gone")})
    with pytest.raises(ValueError, match=r"--mix .*gone: no eval/results.json"):
        read_transfer(runs, str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="give the mixture's run with --mix"):
        read_transfer({**runs, MIX: mix})
    edit(mix, lambda values: values["benchmarks"].pop("document-set"))
    with pytest.raises(
        ValueError, match="'mixture' was not scored on document-set, as 'general' was"
    ):
        read_transfer(runs, mix)
    edit(runs["document"], lambda v: v["benchmarks"]["general-set"].update(questions=4))
    with pytest.raises(
        ValueError, match=r"general-set of 'document' has other questions .*4 and 5"
    ):
        read_transfer(runs)
    edit(runs["document"], lambda v: v["benchmarks"]["general-set"].pop("lines"))
    with pytest.raises(ValueError, match=r"document/eval/results.json: not the results of"):
        read_transfer(runs)


def test_how_fast_a_run_answered_does_not_matter(runs):
    runs.pop(MIX)
    edit(runs["general"], lambda v: v["benchmarks"]["general-set"]["settings"].update(batch_size=1))
    read_transfer(runs)
    edit(runs["general"], lambda v: v["benchmarks"]["general-set"]["settings"].update(suffix="?"))
    with pytest.raises(ValueError, match="has other settings than 'general'"):
        read_transfer(runs)
