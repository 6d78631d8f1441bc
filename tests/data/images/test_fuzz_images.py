"""Thousands of damaged images: each is an RGB image or an `ImageError`, soon, in little memory.

``LLAVA_MOLE_FUZZ=10000 pytest tests/data/images/test_fuzz_images.py -s`` is the full run, and
prints what became of them. It happens in a process of its own, so that a crash of a decoder is
seen as one.
"""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter

from PIL import Image

from llava_mole.data.images.read import ImageError, decode, inspect
from tests.data.fuzz import count, damaged, peak_memory, seed_images

SECONDS = 10
GIBIBYTE = 2**30


def run(number: int) -> dict:
    """Decodes ``number`` damaged images in this process and counts what became of them."""
    chooser = random.Random(2405)
    seeds = seed_images()
    names = list(seeds)
    outcomes, slowest = Counter(), 0.0
    for index in range(number):
        name = names[index % len(names)]
        content = damaged(seeds[name], seeds[chooser.choice(names)], chooser)
        begin = time.perf_counter()
        # A decoder that never comes back is ended here, with the image's number.
        signal.alarm(SECONDS)
        outcomes[name.split()[0], _outcome(content, f"{name} {index}")] += 1
        signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - begin)
    table = {}
    for (format, outcome), times in sorted(outcomes.items()):
        table.setdefault(format, {})[outcome] = times
    return {"outcomes": table, "slowest": slowest, "peak": peak_memory()}


def _outcome(content: bytes, name: str) -> str:
    page = 1 if name.startswith("tiff pages") else None
    image = reason = None
    try:
        image = decode(content, name, page)
    except ImageError as error:
        reason = str(error)
    try:
        inspect(content, ".")
    except ImageError:
        # What the header alone rules out can't be read, except as another page of it.
        assert image is None or page, name
    if image is None:
        assert reason.startswith(f"image {name!r}: "), reason
        return "refused"
    assert isinstance(image, Image.Image), name
    assert image.mode == "RGB", name
    assert len(image.tobytes()) == 3 * image.width * image.height, name
    return "read"


def test_seeds_are_good():
    for name, content in seed_images().items():
        assert decode(content, name).size in ((36, 24), (24, 36))


def test_damaged_images_are_read_or_refused():
    number = count(1500)
    done = subprocess.run(
        [sys.executable, "-c", f"import tests.data.images.test_fuzz_images as t; t.main({number})"],
        capture_output=True,
        text=True,
        timeout=60 + number * SECONDS,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    result = json.loads(done.stdout)
    print(json.dumps(result, indent=1), f"{len(done.stderr.splitlines())} lines on stderr")
    totals = Counter()
    for outcomes in result["outcomes"].values():
        totals.update(outcomes)
        # Every format must both survive some damage and be refused for some.
        assert set(outcomes) == {"read", "refused"}, result["outcomes"]
    assert sum(totals.values()) == number
    assert result["peak"] < GIBIBYTE
    assert result["slowest"] < SECONDS


def main(number: int) -> None:
    """Runs in the process of its own."""
    json.dump(run(number), sys.stdout)
