import io
import tarfile
import zipfile

import pytest

from llava_mole.data.hub import unpack as module
from llava_mole.data.hub.unpack import unpack


def tar(path, members: dict, mode: str = "w"):
    """Members: bytes for a file, a TarInfo for anything else."""
    with tarfile.open(path, mode) as packed:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                packed.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def zipped(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "above", ["", "./", "DocVQA/", "DUE_Benchmark/DocVQA/", "images/DUE_Benchmark/DocVQA/"]
)
@pytest.mark.parametrize("make", [tar, zipped])
def test_folders_above_may_be_named_or_not(tmp_path, above, make):
    archive = make(tmp_path / "a", {f"{above}pngs/x.png": b"x", f"{above}y.txt": b"yy"})
    assert unpack(archive, tmp_path / "images/DUE_Benchmark/DocVQA") == 2
    assert (tmp_path / "images/DUE_Benchmark/DocVQA/pngs/x.png").read_bytes() == b"x"
    assert (tmp_path / "images/DUE_Benchmark/DocVQA/y.txt").read_bytes() == b"yy"


def test_a_second_time_keeps_what_is_whole_and_mends_what_is_not(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", {"a": b"aaa", "b": b"bbb"}, "w:gz")
    unpack(archive, tmp_path / "out")
    (tmp_path / "out/a").write_bytes(b"a")
    before = (tmp_path / "out/b").stat().st_mtime_ns
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/a").read_bytes() == b"aaa"
    assert (tmp_path / "out/b").stat().st_mtime_ns == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"../x": b"x"}, "leads outside"),
        ({"a/../../x": b"x"}, "leads outside"),
        ({"/tmp/x": b"x"}, "leads outside"),
        ({"..\\x": b"x"}, "leads outside"),
        ({"C:/x": b"x"}, "leads outside"),
        ({"l": link("l", tarfile.SYMTYPE, "/etc/passwd")}, "'l' is a link or device"),
        ({"l": link("l", tarfile.LNKTYPE, "../x")}, "'l' is a link or device"),
        ({"d": link("d", tarfile.CHRTYPE, "")}, "'d' is a link or device"),
        ({"f": link("f", tarfile.FIFOTYPE, "")}, "'f' is a link or device"),
    ],
)
def test_nothing_leaves_the_folder(tmp_path, members, reason):
    archive = tar(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=rf"a.tar: .*{reason}"):
        unpack(archive, tmp_path / "in/out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.tar"]


def test_a_link_in_a_zip(tmp_path):
    info = zipfile.ZipInfo("l")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="'l' is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SPARE", 0)
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(10**6)})
    with pytest.raises(ValueError, match="more than 20 times its size"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_litter_is_left_out(tmp_path):
    members = {"__MACOSX/._a": b"x", ".DS_Store": b"x", "a/._b": b"x", "a/b": b"b"}
    assert unpack(zipped(tmp_path / "a.zip", members), tmp_path / "out") == 1


@pytest.mark.parametrize("cut", [0, 100, 700])
def test_a_broken_archive_is_named(tmp_path, cut):
    archive = tar(tmp_path / "a.tar", {"a": bytes(1000)})
    archive.write_bytes(archive.read_bytes()[:cut] if cut else b"no archive" * 100)
    with pytest.raises(ValueError, match=r"a.tar: .*download it again"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out/a").exists()
