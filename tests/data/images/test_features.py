"""Features of images inside records and of pages of a file; those of paths: test_dataset."""

import hashlib
import io

import datasets
import pyarrow as pa
import pytest
import torch
from PIL import Image

from llava_mole.data.images.features import Embedded, build_feature_cache, distinct_images
from llava_mole.data.images.pixels import ProcessorPixels
from llava_mole.data.images.read import ImageError, load_image
from llava_mole.data.prepared.columns import to_batch
from llava_mole.data.prepared.recordset import RecordSet
from tests import tiny
from tests.data.helpers import record


def encoded(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = encoded((200, 0, 0)), encoded((0, 0, 200))


def opened(root, *images) -> RecordSet:
    """A set with one record for each tuple of images."""
    records = [record("<image>" * len(each) + "Q", "A", images=each) for each in images]
    rows = datasets.Dataset(pa.Table.from_batches([to_batch(records, None)]))
    return RecordSet("s", "", 1.0, root, rows, (), "stamp")


@pytest.fixture
def root(tmp_path):
    pages = [Image.new("RGB", (20, 10), (60 * page, 9, 9)) for page in range(3)]
    pages[0].save(tmp_path / "x.tiff", save_all=True, append_images=pages[1:])
    return tmp_path


def total(images):
    """A tower of one number: (n, 3, H, W) to (n, 1, 1)."""
    return images.flatten(1).sum(dim=1)[:, None, None]


def test_distinct_over_sets_by_content(root):
    # More rows than are read at once, so that row numbers count on across blocks.
    many = opened(root, *[("x.tiff",)] * 230, (RED, "x.tiff", BLUE))
    images = distinct_images([opened(root, (RED,), ("x.tiff.1",), (RED, RED)), many])
    assert images[:2] == [("x.tiff", str(root)), ("x.tiff.1", str(root))]
    digests = sorted(hashlib.sha256(image).hexdigest() for image in (RED, BLUE))
    assert [image.digest for image, _ in images[2:]] == digests
    for image, _ in images[2:]:
        assert isinstance(image, Embedded)
        assert hashlib.sha256(image.read()).hexdigest() == image.digest


def test_each_image_and_page_gets_its_own_features(root, tmp_path):
    pixels = ProcessorPixels(tiny.tiny_processor().image_processor)
    sets = [opened(root, (RED, BLUE), ("x.tiff", "x.tiff.1", "x.tiff.2"))]
    path = tmp_path / "cache/features.arrow"
    cache = build_feature_cache(path, distinct_images(sets), pixels, total, "tower", 2)
    assert len(cache) == 5
    values = set()
    for image in (RED, BLUE, "x.tiff", "x.tiff.1", "x.tiff.2"):
        direct = total(pixels(load_image(image, root))[None])[0]
        assert torch.equal(cache.get(image, root), direct)
        values.add(float(direct))
    assert len(values) == 5
    for missing in (encoded((1, 2, 3)), "x.tiff.0"):
        with pytest.raises(ImageError, match="not in feature_cache"):
            cache.get(missing, root)


def test_other_bytes_are_another_fingerprint(root, tmp_path):
    pixels = ProcessorPixels(tiny.tiny_processor().image_processor)
    path = tmp_path / "features.arrow"
    calls = []

    def counting(images):
        calls.append(len(images))
        return total(images)

    for image in (RED, RED, BLUE):
        build_feature_cache(path, distinct_images([opened(root, (image,))]), pixels, counting, "t")
    assert calls == [1, 1]
