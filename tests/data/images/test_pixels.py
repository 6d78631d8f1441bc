import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from llava_mole.data.images.pixels import BAND, ProcessorPixels
from llava_mole.model.processor import pil_image_processor
from tests.data.helpers import expand2square

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def llava_pixels(image: Image.Image, side: int, mean, deviation) -> np.ndarray:
    """LLaVA's own way, written from its description: pad, resize, scale, normalise."""
    square = expand2square(image.convert("RGB"), tuple(int(x * 255) for x in mean))
    square = square.resize((side, side), Image.Resampling.BICUBIC)
    scaled = (np.asarray(square).astype(np.float64) * (1 / 255)).astype(np.float32)
    scaled = (scaled - np.float32(mean)) / np.float32(deviation)
    return scaled.transpose(2, 0, 1)


def sizes():
    chooser = random.Random(7)
    edge = [(1, 1), (1, 3), (3, 1), (1, 100), (100, 1), (2, 5), (5, 2), (3, 3), (3, 7)]
    common = [(640, 427), (427, 640), (336, 336), (336, 200), (200, 336), (337, 336), (672, 336)]
    bands = [(20, BAND), (20, BAND + 1), (20, 2 * BAND - 1), (500, 30), (30, 500)]
    drawn = [(chooser.randint(1, 500), chooser.randint(1, 500)) for _ in range(12)]
    return edge + common + bands + drawn


@pytest.mark.parametrize(("side", "statistics"), [(336, CLIP), (28, HALF), (10, CLIP)])
def test_equal_to_the_processor_and_to_llava_bit_for_bit(side, statistics):
    processor = pil_image_processor(side, *map(list, statistics))
    pixels = ProcessorPixels(processor)
    assert pixels._table is not None
    for number, size in enumerate(sizes()):
        image = random_image(*size, seed=number)
        if number % 3 == 0:
            # Full contrast: bicubic overshoots, so the result is clipped between the passes.
            image = image.point(lambda value: 255 * (value > 127))
        actual = pixels(image)
        assert actual.dtype == torch.float32
        assert actual.shape == (3, side, side)
        assert actual.is_contiguous()
        reference = processor(image, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(actual, reference), size
        assert np.array_equal(actual.numpy(), llava_pixels(image, side, *statistics)), size


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_modes(mode):
    image = random_image(40, 30).convert("L" if mode in ("I;16", "F") else "RGB").convert(mode)
    processor = pil_image_processor(28, *map(list, CLIP))
    reference = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ProcessorPixels(processor)(image), reference)


def test_every_value_of_every_channel():
    # A square of the final size goes through untouched, so this is the table itself.
    processor = pil_image_processor(16, *map(list, CLIP))
    for channel in range(3):
        values = np.full((16, 16, 3), 9, dtype=np.uint8)
        values[..., channel] = np.arange(256).reshape(16, 16)
        image = Image.fromarray(values)
        expected = llava_pixels(image, 16, *CLIP)
        assert np.array_equal(ProcessorPixels(processor)(image).numpy(), expected)


def test_the_fast_way_does_not_call_the_processor(monkeypatch):
    processor = pil_image_processor(28, *map(list, CLIP))
    pixels = ProcessorPixels(processor)
    first = pixels(random_image(40, 30))

    def refuse(*arguments, **options):
        raise AssertionError("the processor was called")

    monkeypatch.setattr(LlavaImageProcessorPil, "__call__", refuse)
    assert torch.equal(pixels(random_image(40, 30)), first)


def test_results_do_not_share_memory():
    pixels = ProcessorPixels(pil_image_processor(28, *map(list, CLIP)))
    first = pixels(random_image(40, 30))
    kept = first.clone()
    pixels(random_image(40, 30, seed=1)).zero_()
    assert torch.equal(first, kept)


class Derived(LlavaImageProcessorPil):
    """Does something of its own, which a table of the base class would miss."""

    def rescale(self, image, scale, **options):
        return super().rescale(image, scale / 2, **options)


@pytest.mark.parametrize(
    "processor",
    [
        Derived(do_pad=True, size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        LlavaImageProcessorPil(
            do_pad=True, size={"shortest_edge": 30}, crop_size={"height": 28, "width": 28}
        ),
        LlavaImageProcessorPil(
            do_pad=True,
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            resample=Image.Resampling.BILINEAR,
        ),
        LlavaImageProcessorPil(
            do_pad=True,
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            do_normalize=False,
        ),
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    ],
    ids=["derived", "no padding", "crop", "bilinear", "not normalised", "CLIP"],
)
def test_other_processors_are_called(processor):
    image = random_image(50, 40)
    reference = processor(image, return_tensors="pt")["pixel_values"][0]
    pixels = ProcessorPixels(processor)
    assert pixels._table is None
    assert torch.equal(pixels(image), reference)


def test_another_scale_is_in_the_table():
    processor = LlavaImageProcessorPil(
        do_pad=True,
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        rescale_factor=1 / 127.5,
    )
    image = random_image(50, 40)
    reference = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ProcessorPixels(processor)(image), reference)


def test_goes_to_worker_processes():
    pixels = ProcessorPixels(pil_image_processor(28, *map(list, CLIP)))
    image = random_image(40, 30)
    assert torch.equal(pickle.loads(pickle.dumps(pixels))(image), pixels(image))
    assert torch.equal(pickle.loads(pickle.dumps(pixels))(image), pixels(image))
