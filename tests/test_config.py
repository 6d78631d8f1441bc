from dataclasses import dataclass, field
from typing import Literal

import pytest

from llava_mole import config


@dataclass
class Optimizer:
    learning_rate: float
    schedule: Literal["cosine", "constant"] = "cosine"


@dataclass
class Source:
    name: str
    weight: float = 1.0


@dataclass
class Run:
    train: Optimizer
    sources: list[Source] = field(default_factory=list)
    domains: dict[str, Source] = field(default_factory=dict)
    note: str | None = None


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return path


def test_base_file_and_override_merge_in_that_order(tmp_path):
    write(tmp_path, "base.yaml", "train: {learning_rate: 1e-3, schedule: constant}\nnote: base\n")
    path = write(
        tmp_path,
        "run.yaml",
        "base: [base.yaml]\ntrain: {learning_rate: 2e-5}\ndomains: {general: {name: a}}\n",
    )
    run = config.load(Run, path, ["note=override", "domains.general.weight=0.25"])
    assert run == Run(
        Optimizer(2e-5, "constant"), domains={"general": Source("a", 0.25)}, note="override"
    )


def test_dump_reads_back(tmp_path):
    run = Run(Optimizer(3e-4), [Source("é", 2.0)], {"x": Source("y")})
    config.dump(run, tmp_path / "out.yaml")
    assert config.load(Run, tmp_path / "out.yaml") == run
    assert [p.name for p in tmp_path.iterdir()] == ["out.yaml"]


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("train:\n  learning_rat: 1\n", [], ["run.yaml:2", "train.learning_rat", "learning_rate"]),
        ("train: {learning_rate: 1}\nsources:\n- nam: a\n", [], ["run.yaml:3", "'name'"]),
        ("train: {learning_rate: fast}\n", [], ["run.yaml:1", "train.learning_rate", "'fast'"]),
        ("note: x\n", [], ["train", "required"]),
        ("train: {learning_rate: 1, schedule: step}\n", [], ["cosine", "'step'"]),
        ("train: {learning_rate: 1}\n", ["train.lr=2"], ["override 'train.lr=2'", "train.lr"]),
        ("train: {learning_rate: 1}\n", ["train"], ["dotted.key=value"]),
        ("train: {learning_rate: 1}\ntrain: {learning_rate: 2}\n", [], ["run.yaml:2", "twice"]),
        ("- a\n", [], ["expected a mapping"]),
        ("a: [\n", [], ["not YAML"]),
    ],
)
def test_errors_name_place_key_and_remedy(tmp_path, text, overrides, expected):
    path = write(tmp_path, "run.yaml", text)
    with pytest.raises(config.ConfigError) as error:
        config.load(Run, path, overrides)
    for part in expected:
        assert part in str(error.value)


def test_missing_file_and_bases_of_bases(tmp_path):
    with pytest.raises(config.ConfigError, match=r"nowhere\.yaml"):
        config.load(Run, tmp_path / "nowhere.yaml")
    write(tmp_path, "a.yaml", "train: {learning_rate: 1, schedule: constant}\nnote: a\n")
    write(tmp_path, "b.yaml", "base: a.yaml\ntrain: {learning_rate: 2}\nnote: b\n")
    (tmp_path / "rows").mkdir()
    path = write(tmp_path / "rows", "c.yaml", "base: ../b.yaml\nnote: c\n")
    assert config.load(Run, path) == Run(Optimizer(2, "constant"), note="c")
    write(tmp_path, "b.yaml", "base: a.yaml\ntrain: {learning_rate: fast}\n")
    with pytest.raises(config.ConfigError, match=r"b\.yaml:2: train.learning_rate"):
        config.load(Run, path)


def test_bases_in_a_circle_are_named(tmp_path):
    write(tmp_path, "a.yaml", "note: a\nbase: b.yaml\n")
    path = write(tmp_path, "b.yaml", "base: a.yaml\n")
    with pytest.raises(config.ConfigError, match=r"a\.yaml:2: .*b\.yaml builds on this file"):
        config.load(Run, path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(config.ConfigError, match=r"x\.png: not a text file"):
        config.load(Run, tmp_path / "x.png")


def test_an_unknown_name_is_told_its_nearest_or_what_there_is_but_no_endless_list():
    assert config.nearest("lora-r", ["lora_r", "x"]) == "did you mean 'lora_r'?"
    assert config.nearest("q", ["a", "b"]) == "there are a, b"
    assert config.nearest("q", []) == "there are none"
    many = config.nearest("q", [f"row-{number:03}" for number in range(120)])
    assert many.endswith("row-039 and 80 more")
