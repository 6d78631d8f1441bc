"""``llava-mole chat`` as a user runs it: a process, piped input, printed transcript."""

import argparse
import os
import subprocess
import sys

import pytest
import yaml
from PIL import Image

from llava_mole.cli import chat
from llava_mole.cli.main import main
from llava_mole.model import ModelConfig, build_model, build_processor, save_projector
from tests import tiny


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A stage-1 run directory of the tiny model, and a picture beside it."""
    folder = tmp_path_factory.mktemp("chat")
    section = tiny.tiny_model_section(folder)
    config = ModelConfig(**section)
    run = folder / "run"
    save_projector(build_model(config), run)
    build_processor(config).save_pretrained(run)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": section}))
    Image.new("RGB", (40, 20), (200, 30, 30)).save(folder / "my red.png")
    (folder / "broken.png").write_bytes(b"no image")
    return run


def converse(run_dir, text, *flags):
    """One process: it imports everything, which takes most of the time here."""
    command = [sys.executable, "-m", "llava_mole.cli.main", "chat", "--model-path", str(run_dir)]
    command += ["--temperature", "0", "--max-new-tokens", "8", "--device", "cpu", *flags]
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=run_dir.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )


def test_piped_conversation(run_dir):
    script = "\n".join(
        [
            "What is this?",
            "",
            "And </s> an <image> in text?",
            "/history",
            "/image nowhere.png",
            "/image broken.png",
            "Still there?",
            "/image my red.png",
            "/history",
            "Red?",
            "/reset",
            "/history",
            "/nonsense",
            "/help",
            "/exit",
            "never read",
        ]
    )
    result = converse(run_dir, script, "--image-file", "my red.png")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "USER: What is this?"
    assert lines[1].startswith("ASSISTANT: ")
    shown = result.stdout
    history = shown[shown.index("USER: /history") : shown.index("USER: /image nowhere.png")]
    assert "USER: What is this?" in history
    assert "USER: And </s> an < image> in text?" in history
    assert history.count("ASSISTANT: ") == 2
    assert "nowhere.png" in shown
    assert "not a readable" in shown
    assert "(new conversation about my red.png, 40x20)" in shown
    after_image = shown[shown.index("40x20)") :]
    assert after_image.splitlines()[1:3] == ["USER: /history", "USER: Red?"]
    after_reset = shown[shown.index("(new conversation)\n") :].splitlines()
    assert after_reset[1:3] == ["USER: /history", "USER: /nonsense"]
    assert "unknown command /nonsense" in shown
    assert "/image PATH" in shown
    assert "never read" not in shown
    assert shown.count("ASSISTANT: ") == 4 + 2  # four answers, two of them shown again


def test_errors_before_the_conversation(run_dir, capsys):
    def fails(*flags):
        assert main(["chat", "--device", "cpu", *flags]) == 2
        return capsys.readouterr().err

    assert "nowhere.png" in fails("--model-path", str(run_dir), "--image-file", "nowhere.png")
    assert "neither config.yaml" in fails("--model-path", str(run_dir.parent))
    assert "exclude" in fails("--model-path", str(run_dir), "--load-4bit", "--load-8bit")


@pytest.fixture
def talk(run_dir):
    config = ModelConfig(**yaml.safe_load((run_dir / "config.yaml").read_text())["model"])
    return chat.Chat(build_model(config), build_processor(config), 0.0, 8)


def test_image_command_names_what_it_cannot_open(talk, capsys):
    talk.take("/image")
    talk.take("/image /nowhere/a.png")
    assert capsys.readouterr().out == "(write /image PATH)\n(/image /nowhere/a.png: no such file)\n"


def test_interrupt_stops_the_answer_only(talk, monkeypatch, capsys):
    talk.take("Hello")
    import llava_mole.generate as generate

    def interrupted(model, processor, image, turns, streamer, **_):
        streamer.on_finalized_text(" half an")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generate, "answer", interrupted)
        assert talk.take("Tell me all")
    assert capsys.readouterr().out.endswith("ASSISTANT: half an (stopped)\n")
    assert talk.turns[-1] == {"role": "assistant", "content": "half an"}
    assert talk.take("Go on")
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"] * 3


def test_streamed_text_is_the_answer(talk, capsys):
    talk.take("Hello")
    assert capsys.readouterr().out.strip() == f"ASSISTANT: {talk.turns[-1]['content']}".strip()


def test_too_long_a_conversation_says_so(talk, capsys):
    assert talk.take("x" * 2000)
    assert "/reset starts a new conversation" in capsys.readouterr().out
    assert talk.turns == []


@pytest.mark.parametrize(
    ("flags", "match"),
    [(["--temperature", "-1"], "temperature"), (["--max-new-tokens", "0"], "max-new-tokens")],
)
def test_bad_flags(flags, match):
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    with pytest.raises(ValueError, match=match):
        chat.run(parser.parse_args(["--model-path", "x", *flags]))
