"""From an RGB image to the vision tower's pixels, several times faster than the HF processor.

The processor stays the reference. Its arithmetic after the resize takes each 8-bit value to one
number, so it is asked once for all 256 of them and a table does the rest. Before that, the padded
square is never built: Pillow resizes the rows first, each by itself, and then the columns, so rows
that are only padding are filled in between the two. Every number comes out bit for bit the same.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

# Rows that are padded and resized together: few enough to stay in the processor's cache.
BAND = 64


@dataclass(frozen=True)
class ProcessorPixels:
    """An HF image processor as a function of one RGB image to (3, H, W).

    LLaVA's (pad to a square, bicubic resize, scale, normalise) is done here, with the same result;
    any other processor is called.

    Attributes:
        image_processor: what chat and scoring use.
    """

    image_processor: Any

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Pixels of ``image``, (3, H, W) float32."""
        table = self._table
        if table is None:
            return self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        side, values = table
        image = image if image.mode == "RGB" else image.convert("RGB")
        colour = tuple(int(mean * 255) for mean in self.image_processor.image_mean)
        square = _padded_and_resized(image, side, colour)
        pixels = np.empty((3, side * side), dtype=np.float32)
        for channel in range(3):
            plane = np.frombuffer(square.getchannel(channel).tobytes(), dtype=np.uint8)
            # "clip" writes straight into ``out``; no index is ever out of range.
            np.take(values[channel], plane, out=pixels[channel], mode="clip")
        return torch.from_numpy(pixels.reshape(3, side, side))

    @functools.cached_property
    def _table(self) -> tuple[int, np.ndarray] | None:
        """Side of the result and (3, 256) value of every 8-bit one; None calls the processor."""
        processor = self.image_processor
        # Exactly this class: one derived from it may do anything.
        if type(processor) is not LlavaImageProcessorPil:
            return None
        side = processor.size.shortest_edge
        crop = (processor.crop_size.height, processor.crop_size.width)
        steps = ("pad", "resize", "center_crop", "rescale", "normalize", "convert_rgb")
        if (
            not all(getattr(processor, f"do_{step}") for step in steps)
            or crop != (side, side)
            or processor.size.longest_edge is not None
            or processor.resample != Image.Resampling.BICUBIC
            or len(processor.image_mean) != 3
        ):
            return None
        return side, np.concatenate(list(self._values(side)), axis=1)[:, :256]

    def _values(self, side: int) -> Iterator[np.ndarray]:
        """What the processor makes of 0, 1, ... 255 (and more), (3, side * side) at a time."""
        for start in range(0, 256, side * side):
            grey = np.arange(start, start + side * side).clip(max=255).astype(np.uint8)
            image = Image.fromarray(grey.reshape(side, side)).convert("RGB")
            result = self.image_processor(image, return_tensors="np")["pixel_values"][0]
            yield np.asarray(result, dtype=np.float32).reshape(3, side * side)


def _padded_and_resized(image: Image.Image, side: int, colour: tuple[int, ...]) -> Image.Image:
    """``image`` centred on a square of ``colour``, resized bicubically to ``side`` x ``side``."""
    width, height = image.size
    longest = max(width, height)
    if height == longest and width == longest:
        return image.resize((side, side), Image.Resampling.BICUBIC)
    if width == longest:
        # A row of one colour stays that colour through the first pass, up to rounding.
        row = Image.new("RGB", (longest, 1), colour).resize((side, 1), Image.Resampling.BICUBIC)
        rows = row.resize((side, longest), Image.Resampling.NEAREST)
        narrow = image.resize((side, height), Image.Resampling.BICUBIC)
        rows.paste(narrow, (0, (longest - height) // 2))
    else:
        rows = Image.new("RGB", (side, longest))
        start = (longest - width) // 2
        for top in range(0, height, BAND):
            bottom = min(top + BAND, height)
            band = Image.new("RGB", (longest, bottom - top), colour)
            band.paste(image.crop((0, top, width, bottom)), (start, 0))
            rows.paste(band.resize((side, bottom - top), Image.Resampling.BICUBIC), (0, top))
    return rows.resize((side, side), Image.Resampling.BICUBIC)
