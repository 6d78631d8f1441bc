"""Batches of each domain: independent of one another, reproducible, as the mixture shows sets."""

import json
from collections import Counter

import pytest

from llava_mole.analysis.conflicts.draw import DrawnBatches, draw_batches
from llava_mole.data.build import open_data
from llava_mole.data.config import DataConfig, DatasetConfig, DomainConfig
from tests.data.helpers import row, write_images


def write(folder, name: str, rows: list[dict]) -> str:
    write_images(folder, 80)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rows))
    return str(path)


def texts(folder, name: str, count: int) -> str:
    return write(folder, name, [row(f"{name}{i}", image=None) for i in range(count)])


def opened(folder, **domains: list[tuple[str, str, float]]):
    """Open data of domain=[(data set, path, weight), …]."""
    groups = {
        name: DomainConfig(1.0, [DatasetConfig(n, path, weight=w) for n, path, w in sets])
        for name, sets in domains.items()
    }
    return open_data(DataConfig(groups, cache_dir=str(folder / "cache")), None, seed=0)


def records(data, drawn: dict) -> dict[str, list]:
    return {
        name: [data.sets[d].record(int(data.audit.keep[d][r])) for batch in own for d, r in batch]
        for name, own in drawn.items()
    }


def test_shapes_seeds_and_no_sample_twice(tmp_path):
    a, b = texts(tmp_path, "a", 60), texts(tmp_path, "b", 60)
    data = opened(tmp_path, one=[("a", a, 1.0)], two=[("b", b, 1.0)])
    drawn = draw_batches(data, 5, 4, seed=1)
    assert list(drawn) == ["one", "two"]
    assert all([len(batch) for batch in own] == [4] * 5 for own in drawn.values())
    for name, own in drawn.items():
        indices = [index for batch in own for index in batch]
        assert len(set(indices)) == 20
        assert {d for d, _ in indices} == {("one", "two").index(name)}
    assert draw_batches(data, 5, 4, seed=1) == drawn
    assert draw_batches(data, 5, 4, seed=2)["one"] != drawn["one"]
    # A domain's draw does not depend on the others.
    other = opened(tmp_path, three=[("b", b, 1.0)], one=[("a", a, 1.0)])
    rows = [[row for _, row in batch] for batch in drawn["one"]]
    again = draw_batches(other, 5, 4, seed=1)["one"]
    assert [[row for _, row in batch] for batch in again] == rows


def test_one_file_under_two_names_gives_disjoint_records(tmp_path):
    path = texts(tmp_path, "a", 40)
    data = opened(tmp_path, one=[("a", path, 1.0)], two=[("again", path, 1.0)])
    found = records(data, draw_batches(data, 5, 4, seed=0))
    one, two = ({record.id for record in own} for own in found.values())
    assert len(one) == len(two) == 20
    assert not one & two


def test_no_image_is_drawn_twice(tmp_path):
    def rows(name):
        return [row(f"{name}{i}", image=f"{i // 3}.png") for i in range(60)]

    a, b = write(tmp_path, "a", rows("a")), write(tmp_path, "b", rows("b"))
    data = opened(tmp_path, one=[("a", a, 1.0)], two=[("b", b, 1.0)])
    found = records(data, draw_batches(data, 4, 2, seed=0))
    images = [record.images[0] for own in found.values() for record in own]
    assert len(images) == len(set(images)) == 16
    with pytest.raises(ValueError, match=r"'two' has too few samples: 12 are to be drawn .* after"):
        draw_batches(data, 4, 3, seed=0)


def test_data_sets_are_drawn_as_the_mixture_shows_them(tmp_path):
    a, b = texts(tmp_path, "a", 400), texts(tmp_path, "b", 1200)
    data = opened(tmp_path, one=[("a", a, 1.0), ("b", b, 0.1)], two=[("c", b, 1.0), ("d", a, 0.0)])
    counts = Counter(d for batch in draw_batches(data, 30, 10, seed=0)["one"] for d, _ in batch)
    # Of a 400 are shown an epoch, of b 120.
    assert counts[0] == pytest.approx(300 * 400 / 520, abs=30)
    by_set = draw_batches(data, 4, 2, seed=0, by="dataset")
    assert list(by_set) == ["a", "b", "c"]


def test_one_group_alone_is_refused(tmp_path):
    a, b = texts(tmp_path, "a", 9), texts(tmp_path, "b", 9)
    data = opened(tmp_path, one=[("a", a, 1.0), ("b", b, 1.0)])
    with pytest.raises(ValueError, match=r"two domains, and the only one .* 'one'; .*--by dataset"):
        draw_batches(data, 4, 1, seed=0)
    assert len(draw_batches(data, 4, 1, seed=0, by="dataset")) == 2
    data = opened(tmp_path, one=[("a", a, 1.0)])
    with pytest.raises(ValueError, match="add another to data"):
        draw_batches(data, 4, 1, seed=0, by="dataset")


def test_batches_are_read_when_asked_for():
    asked = []

    class Samples:
        def __getitem__(self, index):
            asked.append(index)
            return index

    batches = DrawnBatches(Samples(), [[(0, 3), (1, 4)], [(0, 5)]])
    assert len(batches) == 2
    assert not asked
    assert batches[1] == [(0, 5)]
    assert asked == [(0, 5)]
