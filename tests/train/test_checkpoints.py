import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from llava_mole.train import checkpoints


def make(output_dir, step, content=b"weights"):
    staged = checkpoints.staging_folder(output_dir, step)
    (staged / "global_step").mkdir(parents=True)
    (staged / "adapter_model.safetensors").write_bytes(content)
    (staged / "global_step" / "shard.pt").write_bytes(b"optimizer" * 100)
    checkpoints.write_manifest(staged, step=step)
    return checkpoints.publish(staged, output_dir, step)


def test_whole_checkpoints_verify_and_the_newest_is_found(tmp_path):
    make(tmp_path, 9)
    newest = make(tmp_path, 10)
    manifest = checkpoints.verify(newest)
    assert manifest["step"] == 10
    assert set(manifest["files"]) == {"adapter_model.safetensors", "global_step/shard.pt"}
    assert checkpoints.newest_valid(tmp_path) == (newest, [])
    assert checkpoints.newest_valid(tmp_path / "absent") == (None, [])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda c: (c / "adapter_model.safetensors").write_bytes(b"weightz"), "SHA-256"),
        (lambda c: (c / "adapter_model.safetensors").write_bytes(b"weight"), "another size"),
        (lambda c: (c / "global_step" / "shard.pt").unlink(), "is missing"),
        (lambda c: (c / "extra.pt").write_bytes(b""), "not in the manifest"),
        (lambda c: (c / "manifest.json").unlink(), "never finished"),
        (lambda c: (c / "manifest.json").write_text("{"), "damaged"),
        (lambda c: (c / "manifest.json").write_text('{"files": 3}'), "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_the_reason(tmp_path, damage, reason):
    good, bad = make(tmp_path, 1), make(tmp_path, 2)
    damage(bad)
    with pytest.raises(ValueError, match=reason):
        checkpoints.verify(bad)
    found, messages = checkpoints.newest_valid(tmp_path)
    assert found == good
    assert len(messages) == 1
    assert "checkpoint-2" in messages[0]
    assert reason in messages[0]


def test_every_single_bit_counts(tmp_path):
    folder = make(tmp_path, 1, content=bytes(range(32)))
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="SHA-256"):
            checkpoints.verify(folder)
    path.write_bytes(whole)
    checkpoints.verify(folder)


def test_half_written_folders_are_named_and_removed(tmp_path):
    good = make(tmp_path, 1)
    staged = checkpoints.staging_folder(tmp_path, 2)
    staged.mkdir()
    (staged / "adapter_model.safetensors").write_bytes(b"half")
    found, messages = checkpoints.newest_valid(tmp_path)
    assert found == good
    assert "interrupted" in messages[0]
    checkpoints.remove_stale(tmp_path, keep=None)
    assert not staged.exists()
    assert good.exists()


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 10, 20):
        make(tmp_path, step)
    checkpoints.remove_stale(tmp_path, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-20"]


def test_what_a_run_went_back_behind_neither_counts_nor_pushes_out_what_it_saves(tmp_path):
    for step in (15, 20):
        (make(tmp_path, step) / "adapter_model.safetensors").write_bytes(b"damaged")
    for step in (5, 10):
        make(tmp_path, step)
        for old, new in checkpoints.set_aside(tmp_path, beyond=step):
            assert new.name == f"abandoned-{old.name}"
        checkpoints.remove_stale(tmp_path, keep=1)
    assert checkpoints.newest_valid(tmp_path) == (tmp_path / "checkpoint-10", [])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "abandoned-checkpoint-15",
        "abandoned-checkpoint-20",
        "checkpoint-10",
    ]


def test_a_damaged_checkpoint_of_the_same_step_gives_way(tmp_path):
    bad = make(tmp_path, 3, b"old")
    (bad / "manifest.json").unlink()
    again = make(tmp_path, 3, b"new")
    assert (again / "adapter_model.safetensors").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-3"]


def test_too_little_space_names_path_and_bytes(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(OSError, match=r"needs about [\d,]+ bytes and [\d,]+ are free") as error:
        checkpoints.check_space(tmp_path, 2 * free)
    assert str(tmp_path) in str(error.value)
    checkpoints.check_space(tmp_path, 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from llava_mole.train import checkpoints

countdown = int(sys.argv[2])

def counted(function):
    def wrapper(*args, **kwargs):
        global countdown
        countdown -= 1
        if countdown < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper

os.fsync, os.replace, os.open = counted(os.fsync), counted(os.replace), counted(os.open)
root = Path(sys.argv[1])
staged = checkpoints.staging_folder(root, 2)
staged.mkdir()
(staged / "adapter_model.safetensors").write_bytes(b"second")
checkpoints.write_manifest(staged, step=2)
checkpoints.publish(staged, root, 2)
"""


def test_a_kill_at_any_write_leaves_a_valid_checkpoint(tmp_path):
    script = tmp_path / "killed.py"
    # Imported alone: the point is the order of the system calls, not three seconds of torch.
    module = os.path.join(os.path.dirname(checkpoints.__file__), "checkpoints.py")
    script.write_text(
        KILLED.replace(
            "from llava_mole.train import checkpoints",
            "import importlib.util\n"
            f"spec = importlib.util.spec_from_file_location('checkpoints', {module!r})\n"
            "checkpoints = importlib.util.module_from_spec(spec)\n"
            "spec.loader.exec_module(checkpoints)",
        )
    )
    outcomes = []
    for moment in range(40):
        root = tmp_path / f"run{moment}"
        root.mkdir()
        first = make(root, 1)
        status = subprocess.run([sys.executable, str(script), str(root), str(moment)], check=False)
        found, _ = checkpoints.newest_valid(root)
        outcomes.append(found.name)
        assert found == first or found.name == "checkpoint-2"
        if status.returncode == 0:
            break
        assert status.returncode == -signal.SIGKILL
    assert outcomes[0] == "checkpoint-1"
    assert outcomes[-1] == "checkpoint-2"
    assert json.loads((root / "checkpoint-2" / "manifest.json").read_text())["step"] == 2
