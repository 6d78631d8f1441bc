"""Statistics in columns against counting record by record."""

import collections
import dataclasses
import statistics
import xml.etree.ElementTree

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from llava_mole.analysis import data_plot, data_stats
from llava_mole.data.tokens.encode import IGNORE_INDEX
from tests.analysis import helpers


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stats")
    helpers.make(folder)
    return helpers.opened(folder / "set.jsonl", folder / "cache")


def made_up(sizes: dict[str, int], name: str = "mine", seed: int = 0) -> data_stats.Columns:
    random = np.random.default_rng(seed)
    source = random.permutation(np.repeat(np.arange(len(sizes)), list(sizes.values())))
    return data_stats.Columns(
        name=name,
        domain="d",
        sources=tuple(sizes),
        source=source.astype(np.int32),
        num_images=random.integers(0, 11, len(source)).astype(np.int16),
        lengths=random.integers(20, 3000, len(source)).astype(np.int32),
        num_bad=7,
        supervised=0.25,
    )


def test_counts_by_source_are_the_records(records):
    found = {item.source: item for item in data_stats.measure(data_stats.columns(records))}
    everything = list(records.records())
    by_source = collections.Counter(record.source for record in everything)
    assert list(found) == [data_stats.ALL, "b", "a"]
    for source, item in found.items():
        own = [r for r in everything if source in (data_stats.ALL, r.source)]
        images = [len(record.images) for record in own]
        assert item.samples == len(own) == by_source.get(source, len(everything))
        assert item.text_only == images.count(0)
        assert item.images == sum(images)
        expected = {str(n): images.count(n) for n in sorted(set(images))}
        assert item.images_per_sample == expected
        assert item.lengths == {}
    assert found[data_stats.ALL].bad == 1


def test_sources_are_told_apart_across_the_shards_of_a_table(records):
    table = pa.table(records.rows.data.table)
    shards = pa.concat_tables([table.slice(3), table.slice(0, 3)])
    rows = datasets.Dataset(datasets.table.InMemoryTable(shards))
    data = data_stats.columns(dataclasses.replace(records, rows=rows))
    expected = [record.source for record in records.records()]
    assert [data.sources[code] for code in data.source] == expected[3:] + expected[:3]


def test_only_the_rows_that_an_audit_kept_count(records):
    keep = np.array([1, 4])
    data = data_stats.columns(records, keep, np.array([100, 50], dtype=np.int32))
    whole, *_ = data_stats.measure(data, max_length=60)
    assert (whole.samples, whole.bad, whole.images) == (2, 4, 2)
    assert (whole.tokens, whole.over_max_length) == (150, 1)


def test_quantiles_are_those_of_the_sorted_lengths():
    data = made_up({"a": 1201, "b": 400, "c": 1})
    whole, *sources = data_stats.measure(data, max_length=2000)
    for item in (whole, *sources):
        rows = np.ones(len(data.source), bool)
        if item.source != data_stats.ALL:
            rows = data.source == data.sources.index(item.source)
        own = sorted(data.lengths[rows].tolist())
        assert item.lengths["min"] == own[0]
        assert item.lengths["max"] == own[-1]
        assert item.lengths["mean"] == pytest.approx(statistics.fmean(own))
        assert item.lengths["median"] == statistics.median(own)
        if len(own) > 1:
            cuts = statistics.quantiles(own, n=100, method="inclusive")
            for key, cut in (("p5", 5), ("p95", 95), ("p99", 99)):
                assert item.lengths[key] == pytest.approx(cuts[cut - 1])
        assert item.over_max_length == sum(length > 2000 for length in own)
        assert item.tokens == sum(own)
        images = data.num_images[rows].tolist()
        assert item.images_per_sample.get("8+", 0) == sum(n >= 8 for n in images)
        assert sum(item.images_per_sample.values()) == len(own)
    assert [item.source for item in sources] == ["a", "b", "c"]


def test_tokens_of_many_rows_do_not_overflow():
    data = made_up({"a": 1000})
    data = data_stats.Columns(**{**vars(data), "lengths": np.full(1000, 2**31 - 1, np.int32)})
    assert data_stats.measure(data)[0].tokens == 1000 * (2**31 - 1)


def test_the_share_of_supervised_tokens_is_the_encoders(records):
    encoder = helpers.encoder()
    good = [row for row in range(len(records)) if records.record(row).id != "long"]
    supervised = total = 0
    for row in good:
        labels = encoder(records.record(row)).labels[1:]
        supervised += int((labels != IGNORE_INDEX).sum())
        total += len(labels) + 1
    share = data_stats.supervised_share(records, np.array(good), encoder)
    assert share == pytest.approx(supervised / total)
    assert data_stats.supervised_share(records, np.array([], np.int64), encoder) is None


def test_the_table_has_a_line_a_source_and_no_lengths_where_there_are_none(records):
    lines = data_stats.table(data_stats.measure(data_stats.columns(records))).splitlines()
    assert len(lines) == 4
    assert "median" not in lines[0]
    text = data_stats.table(data_stats.measure(made_up({"a": 10, "b": 5}), 100))
    assert all(word in text for word in ("median", "p99", "25.0%", "8+"))


@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_plot_has_a_panel_for_what_is_known(tmp_path, count):
    data = [made_up({"a": 50, "b": 50}, f"set {index}", index) for index in range(count)]
    data_plot.draw(data, tmp_path / "all.png", 2048, {item.name: 9 for item in data})
    with Image.open(tmp_path / "all.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
    bare = [data_stats.Columns(**{**vars(item), "lengths": None}) for item in data]
    data_plot.draw(bare, tmp_path / "bare.svg")
    root = xml.etree.ElementTree.parse(tmp_path / "bare.svg").getroot()
    assert root.tag.endswith("svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.png", "bare.svg"]


def test_hostile_names_are_drawn_as_text(tmp_path):
    data = [made_up({"a": 5}, "$\\frac{$ <x> _hidden"), made_up({"a": 5}, "_hidden")]
    data_plot.draw(data, tmp_path / "a.png", None, {item.name: 1 for item in data})
    assert (tmp_path / "a.png").exists()


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.png"):
        data_plot.draw([made_up({"a": 5})], tmp_path / "a.jpeg")
