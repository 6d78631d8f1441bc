"""The image pipeline against PIL's decode and resize alone, on one core, side by side.

Both arms start from the bytes of a JPEG in memory and use the installed Pillow. Rounds of the two
alternate, so that a busy machine slows both; each arm's figure is the median over rounds of CPU
time.
"""

import io
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 336
SIZE = (640, 480)


def images_step(folder: str, paths: Sequence[str], rounds: int = 9) -> dict[str, Any]:
    """Images per second of CPU of both arms.

    Args:
        folder: where the images are.
        paths: JPEG files below it.
        rounds: how often both arms go over all images.

    Returns:
        ``ours`` and ``pil`` in images per second, their ``ratio`` of time (median over rounds),
        and ``pillow``, the version.
    """
    import PIL
    import torch
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    from llava_mole.data.images.pixels import ProcessorPixels
    from llava_mole.data.images.read import decode
    from llava_mole.model.processor import pil_image_processor

    torch.set_num_threads(1)
    contents = [(Path(folder) / path).read_bytes() for path in paths]
    pixels = ProcessorPixels(
        pil_image_processor(SIDE, list(OPENAI_CLIP_MEAN), list(OPENAI_CLIP_STD))
    )

    def ours(content: bytes) -> None:
        pixels(decode(content))

    def pil(content: bytes) -> None:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)

    times: dict[str, list[float]] = {"ours": [], "pil": []}
    for number in range(rounds + 1):
        for name, work in (("ours", ours), ("pil", pil)):
            seconds = _time(work, contents)
            # The first round warms both up.
            if number:
                times[name].append(seconds)
    return {
        **{name: len(paths) / statistics.median(values) for name, values in times.items()},
        "ratio": statistics.median(a / b for a, b in zip(times["ours"], times["pil"], strict=True)),
        "pillow": PIL.__version__,
    }


def _time(work: Callable[[bytes], None], contents: Sequence[bytes]) -> float:
    started = time.process_time()
    for content in contents:
        work(content)
    return time.process_time() - started
