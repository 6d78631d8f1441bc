import pickle

import pytest
import torch

from llava_mole.data.build import open_data
from llava_mole.data.collate import PaddedCollator
from llava_mole.data.config import DataConfig, DatasetConfig, DomainConfig
from llava_mole.data.images.features import FeatureCache, build_feature_cache, distinct_images
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.images.read import ImageError, load_image
from llava_mole.data.records import BadRecord
from llava_mole.data.sampler import EpochSampler
from llava_mole.data.tokens.encode import Encoder
from tests import tiny
from tests.data.helpers import VicunaLike, row, write_images, write_jsonl


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, VicunaLike(), tiny.NUM_IMAGE_TOKENS, 300)


@pytest.fixture
def pixels():
    return ProcessorPixels(tiny.tiny_processor().image_processor)


@pytest.fixture
def opened(tmp_path, encoder):
    write_images(tmp_path, 5)
    write_jsonl(tmp_path / "a.jsonl", [row(f"a{i}", f"{i % 5}.png") for i in range(12)])
    mixed = [row(f"b{i}", "1.png" if i % 2 else None) for i in range(6)]
    write_jsonl(tmp_path / "b.jsonl", mixed)
    domains = {
        name: DomainConfig(1, [DatasetConfig(name, str(tmp_path / f"{name}.jsonl"))])
        for name in ("a", "b")
    }
    return open_data(DataConfig(domains, cache_dir=str(tmp_path / "cache")), encoder, seed=0)


def test_samples_are_the_records_they_are_asked_for(opened, encoder, pixels):
    samples = opened.samples(encoder, pixels)
    assert len(samples) == 18
    for dataset, index in EpochSampler(opened.mixture, 1):
        record = opened.sets[dataset].record(index)
        sample = samples[dataset, index]
        assert sample["dataset_id"] == dataset
        assert sample["encoded"].input_ids.equal(encoder(record).input_ids)
        if record.images:
            expected = pixels(load_image(record.images[0], opened.sets[dataset].image_root))
            assert sample["pixel_values"].equal(expected[None])
        else:
            assert "pixel_values" not in sample


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_do_not_change_the_batches(opened, encoder, pixels, workers):
    sampler = EpochSampler(opened.mixture, 6)
    loader = torch.utils.data.DataLoader(
        opened.samples(encoder, pixels),
        batch_size=3,
        sampler=sampler,
        collate_fn=PaddedCollator(tiny.PAD_TOKEN_ID),
        num_workers=workers,
    )
    samples, order = opened.samples(encoder, pixels), list(sampler)
    batches = list(loader)
    assert len(batches) == 6
    for number, batch in enumerate(batches):
        direct = PaddedCollator(tiny.PAD_TOKEN_ID)(
            [samples[pair] for pair in order[3 * number : 3 * number + 3]]
        )
        assert batch.keys() == direct.keys()
        for key, value in direct.items():
            assert torch.equal(torch.as_tensor(batch[key]), torch.as_tensor(value)), key


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_goes_missing_names_its_record(opened, encoder, pixels, tmp_path, workers):
    (tmp_path / "3.png").unlink()
    loader = torch.utils.data.DataLoader(
        opened.samples(encoder, pixels), batch_size=None, sampler=[(0, 3)], num_workers=workers
    )
    with pytest.raises(BadRecord, match=r"a.jsonl:4: record 'a3': image '3.png': No such file"):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 1])
def test_marked_it_keeps_its_place_and_nothing_takes_it(opened, encoder, pixels, tmp_path, workers):
    samples = opened.samples(encoder, pixels)
    before = samples[0, 2]
    (tmp_path / "3.png").write_bytes(b"not an image")
    marking = samples.marking(tiny.PAD_TOKEN_ID)
    loader = torch.utils.data.DataLoader(
        marking, batch_size=None, sampler=[(0, 3), (0, 2)], num_workers=workers
    )
    bad, good = loader
    assert bad["encoded"].input_ids.tolist() == [tiny.PAD_TOKEN_ID]
    assert bad["encoded"].labels.tolist() == [-100]
    assert "pixel_values" not in bad
    problem = bad["problem"]
    assert (problem.dataset, problem.line, problem.id) == ("a", 4, "a3")
    assert problem.file.endswith("a.jsonl")
    assert "3.png" in problem.reason
    assert good["pixel_values"].equal(before["pixel_values"])
    assert "problem" not in good
    with pytest.raises(BadRecord):
        samples[0, 3]


def _tower(images):
    """A fixed linear map: (n, 3, H, W) to (n, 4, 6)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(images[0].numel(), 24, generator=generator)
    return torch.stack([(image.flatten() @ weight).view(4, 6) for image in images])


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_cached_features_equal_direct_ones(opened, encoder, pixels, tmp_path, dtype):
    images = distinct_images(opened.sets)
    assert [path for path, _ in images] == [f"{index}.png" for index in range(5)]
    path = tmp_path / "cache/features.arrow"
    cache = build_feature_cache(path, images, pixels, _tower, "tower", 2, dtype)
    assert len(cache) == 5
    for key in images:
        direct = _tower(pixels(load_image(*key))[None])[0].to(dtype)
        assert cache.get(*key).equal(direct)
    copied = pickle.loads(pickle.dumps(cache))
    assert copied.get(*images[0]).equal(cache.get(*images[0]))

    def no_pixels(image):
        raise AssertionError("pixels were computed although the features are cached")

    sample = opened.samples(encoder, no_pixels, cache)[0, 2]
    assert sample["pixel_values"].shape == (1, 4, 6)
    assert sample["pixel_values"][0].equal(cache.get(*images[2]))


def test_features_are_computed_once_and_again_when_anything_changed(opened, pixels, tmp_path):
    images = distinct_images(opened.sets)
    path = tmp_path / "features.arrow"
    calls = []

    def tower(batch):
        calls.append(len(batch))
        return _tower(batch)

    build_feature_cache(path, images, pixels, tower, {"tower": 1}, 2)
    assert calls == [2, 2, 1]
    build_feature_cache(path, images, pixels, tower, {"tower": 1}, 2)
    # A run that needs fewer of them, as one on a single domain, takes the same file.
    assert len(build_feature_cache(path, images[:2], pixels, tower, {"tower": 1}, 2)) == 5
    assert sum(calls) == 5
    with pytest.raises(ValueError, match="made with another tower"):
        FeatureCache(path, "other")
    build_feature_cache(path, images, pixels, tower, {"tower": 2}, 2)
    assert sum(calls) == 10
    write_images(tmp_path / "new", 1)
    (tmp_path / "new/0.png").rename(tmp_path / "4.png")
    stale = FeatureCache(path)
    with pytest.raises(ImageError, match="changed since"):
        stale.get("4.png", tmp_path)
    build_feature_cache(path, images, pixels, tower, {"tower": 2}, 2)
    assert sum(calls) == 15


def test_an_interrupted_or_damaged_cache_is_made_anew(opened, pixels, tmp_path):
    images = distinct_images(opened.sets)
    path = tmp_path / "features.arrow"

    def dies(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_feature_cache(path, images, pixels, dies, "t")
    assert not list(tmp_path.glob("features*"))
    cache = build_feature_cache(path, images, pixels, _tower, "t")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a feature file"):
        FeatureCache(path)
    again = build_feature_cache(path, images, pixels, _tower, "t")
    assert again.get(*images[1]).shape == (4, 6)
    del cache
    with pytest.raises(ValueError, match="no images"):
        build_feature_cache(path, [], pixels, _tower, "t")
