import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from llava_mole.data.hub.catalogue import CATALOGUE
from tests.data.hub.server import Hub

CAPTIONS = "share-captioner_coco_lcs_sam_1246k_1107.json"


@pytest.fixture
def hub(request):
    """A hub for the data set that the test names by `pytest.mark.parametrize` or its default."""
    hubs = []

    def start(name: str, files: dict[str, bytes], **options) -> Hub:
        hubs.append(Hub(CATALOGUE[name].hub_id, files, **options))
        return hubs[-1]

    yield start
    for started in hubs:
        started.close()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "llava_mole.cli.main", "data", "download", *map(str, arguments)]


def run(hub: Hub, home, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments),
        env=hub.environment(home),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_licence_and_size_come_first_and_what_is_left_to_do_last(hub, tmp_path):
    served = hub("sharegpt4v-pretrain", {CAPTIONS: b"[]", "README.md": b"x", "other.json": b"{}"})
    done = run(served, tmp_path / "home", "sharegpt4v-pretrain", "--output", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/sharegpt4v" / CAPTIONS).read_bytes() == b"[]"
    present = [path.name for path in (tmp_path / "data/sharegpt4v").iterdir()]
    assert present == [CAPTIONS], "no other file of the repository"
    lines = done.stdout.splitlines()
    assert lines[1] == "  licence: CC-BY-NC-4.0; the images have their own"
    assert "1 files, 2 bytes, licence cc-by-4.0" in done.stdout
    assert f"into {tmp_path / 'data/sam/images'}" in done.stdout
    assert "https://ai.meta.com/datasets/segment-anything-downloads/" in done.stdout
    assert lines[-1].startswith("  llava-mole data prepare sharegpt4v-pretrain --source")


def test_a_killed_download_goes_on_where_it_was(hub, tmp_path):
    data = bytes(range(256)) * 4096 * 32
    served = hub("sharegpt4v-pretrain", {CAPTIONS: data})
    served.stall_after = len(data) * 3 // 4
    arguments = ("sharegpt4v-pretrain", "--output", tmp_path / "data")
    process = subprocess.Popen(
        command(*arguments),
        env=served.environment(tmp_path / "home"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "data/sharegpt4v"
    try:
        assert served.stalled.wait(60)
        deadline = time.monotonic() + 30
        while _partial(folder) < len(data) // 4 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    had = _partial(folder)
    assert 0 < had < len(data)
    assert not (folder / CAPTIONS).exists(), "no partial file in its place"
    served.stall_after = None
    served.go_on.set()
    served.requests.clear()
    done = run(served, tmp_path / "home", *arguments)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {CAPTIONS: data}
    fetched = [wanted for _, path, wanted in served.requests if path.startswith("/cdn/")]
    assert fetched == [f"bytes={had}-"]
    # What is whole is not fetched again.
    served.requests.clear()
    assert run(served, tmp_path / "home", *arguments).returncode == 0
    assert not [path for _, path, _ in served.requests if path.startswith("/cdn/")]


def _partial(folder) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.partial"))


def test_a_changed_file_does_not_go_on_with_the_old_ones_beginning(hub, tmp_path):
    served = hub("sharegpt4v-pretrain", {CAPTIONS: b"[new]"})
    folder = tmp_path / "data/sharegpt4v"
    folder.mkdir(parents=True)
    (folder / f".{CAPTIONS}.0123456789abcdef.partial").write_bytes(b"[ol")
    done = run(served, tmp_path / "home", "sharegpt4v-pretrain", "--output", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert (folder / CAPTIONS).read_bytes() == b"[new]"


def test_a_damaged_file_is_not_kept(hub, tmp_path):
    served = hub("sharegpt4v-pretrain", {CAPTIONS: b"[]"})
    served.sha256 = "0" * 64
    done = run(served, tmp_path / "home", "sharegpt4v-pretrain", "--output", tmp_path / "data")
    assert done.returncode == 2
    assert "arrived damaged" in done.stderr
    assert not list((tmp_path / "data/sharegpt4v").iterdir())


def test_m3it_leaves_the_rephrased_files_and_takes_what_is_asked_for(hub, tmp_path):
    names = [
        "data/vqa/okvqa/train_v2.jsonl",
        "data/vqa/okvqa/instructions.json",
        "data/vqa/okvqa/val.jsonl",
        "data/classification/imagenet/mapping.txt",
        "data/generation/visual_dialog/train_2023-10-09.jsonl",
        "M3IT.py",
    ]
    served = hub("m3it", dict.fromkeys(names, b"{}"))
    out = ("--output", tmp_path)
    done = run(served, tmp_path / "home", "m3it", *out, "--dry-run")
    assert done.returncode == 0, done.stderr
    listed = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("    ")]
    assert listed == [names[0], names[1], names[3]]
    assert not (tmp_path / "m3it").exists()
    done = run(served, tmp_path / "home", "m3it", *out, "--only", "data/vqa/*")
    assert done.returncode == 0, done.stderr
    assert set(_tree(tmp_path / "m3it")) == set(names[:2])
    done = run(served, tmp_path / "home", "m3it", *out, "--only", "nothing*")
    assert done.returncode == 2
    assert "none of the 3 files" in done.stderr


def test_archives_are_unpacked_into_the_published_tree(hub, tmp_path):
    from tests.data.sources import published

    tree = published.ureader(tmp_path / "made")
    files = {"ureader_json.zip": _zip(tree, "ureader_json")}
    for path in sorted((tree / "ureader_images").rglob("*")):
        parts = path.relative_to(tree / "ureader_images").parts
        name = parts[1] if parts[0] == "DUE_Benchmark" and len(parts) > 1 else parts[0]
        if path.is_file():
            files[f"{name}.tar"] = _tar(path, "/".join(parts))
    served = hub("ureader", files)
    done = run(served, tmp_path / "home", "ureader", "--output", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "data/ureader", tmp_path / "got", ignore=_archives)
    assert _tree(tmp_path / "got") == _tree(tree)


def _archives(folder, names):
    return [name for name in names if name.endswith((".zip", ".tar"))]


def _tree(folder) -> dict:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _zip(root, folder: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted((root / folder).rglob("*")):
            packed.write(path, path.relative_to(root))
    return stream.getvalue()


def _tar(path, name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        packed.add(path, name)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("GatedRepo", "only for those who accepted its terms: do so at https://huggingface.co"),
        ("RepoNotFound", "is not there, or only after a login"),
    ],
)
def test_a_refusal_says_what_to_do(hub, tmp_path, code, message):
    served = hub("pathvqa", {})
    served.refuse = code
    done = run(served, tmp_path / "home", "pathvqa", "--output", tmp_path / "data")
    assert done.returncode == 2
    assert message in done.stderr
    assert "licence: MIT" in done.stdout, "said first all the same"
    assert not (tmp_path / "data").exists()


def test_a_listing_that_leaves_the_folder_is_not_fetched(hub, tmp_path):
    served = hub("pathvqa", {"data/../../../evil.parquet": b"x"})
    done = run(served, tmp_path / "home", "pathvqa", "--output", tmp_path / "data")
    assert done.returncode == 2
    assert "lies outside its folder" in done.stderr
    assert not list(tmp_path.rglob("evil.parquet"))


def test_no_network(hub, tmp_path):
    served = hub("pathvqa", {})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        served.url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    # What lies there must not be taken for the download.
    (tmp_path / "data/pathvqa").mkdir(parents=True)
    (tmp_path / "data/pathvqa/half.txt").write_text("x")
    done = run(served, tmp_path / "home", "pathvqa", "--output", tmp_path / "data")
    assert done.returncode == 2
    assert "the hub does not answer" in done.stderr
    assert "https://huggingface.co/datasets/flaviagiammarino/path-vqa by hand" in done.stderr
    dry = run(served, tmp_path / "home", "pathvqa", "--output", tmp_path / "data", "--dry-run")
    assert dry.returncode == 0
    assert "785 MB, by the card" in dry.stdout
    assert "the hub does not answer" in dry.stdout


def test_names(tmp_path, capsys):
    from llava_mole.cli.main import main

    assert main(["data", "download", "pathvqs"]) == 2
    error = capsys.readouterr().err
    assert "no data set 'pathvqs'; choose one of sharegpt4v-pretrain" in error
    assert main(["data", "download"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in CATALOGUE)


def test_no_room_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    import collections

    from llava_mole.data.hub import download

    usage = collections.namedtuple("usage", "total used free")(10**12, 0, 2 * 10**9)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    listing = download.Listing("0" * 40, "", {"a.json": download.File(10**9, "a")})
    with pytest.raises(ValueError, match=r"2 GB free, and 1 GB are still to come; make room"):
        download.download(CATALOGUE["pathvqa"], listing, tmp_path)
    assert not (tmp_path / "pathvqa").exists()
    packed = download.Listing("0" * 40, "", {"DocVQA.tar": download.File(5 * 10**8, "b")})
    with pytest.raises(ValueError, match=r"1 GB are still to come \(archives and what is in them"):
        download.download(CATALOGUE["ureader"], packed, tmp_path)


def test_every_entry_can_be_prepared():
    from llava_mole.data.sources import SOURCES

    assert set(CATALOGUE) == set(SOURCES) - {"llava"}
    for name, entry in CATALOGUE.items():
        assert entry.prepare.startswith(f"llava-mole data prepare {name} --source {{data}}/")
    json.dumps([vars(item) for entry in CATALOGUE.values() for item in entry.by_hand])
