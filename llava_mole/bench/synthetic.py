"""Made-up data sets of the paper's shape, of any size, the same for the same seed.

Two files of LLaVA JSON stand for the mixture's two kinds of data: ``general`` (long captions,
conversations, several images, text alone, some of it Chinese) and ``document`` (one short question
and answer). Texts are drawn sentence by sentence from a pool, so that no two records are alike; the
images are a few hundred real JPEG files that records share.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# (kind, share of the records); of what ShareGPT4V, M3IT, UReader and PathVQA hold, roughly.
GENERAL = (
    ("caption", 0.40),
    ("conversation", 0.32),
    ("question", 0.12),
    ("text", 0.06),
    ("images", 0.05),
    ("chinese", 0.05),
)
DOCUMENT = (("question", 0.97), ("text", 0.03))
FILES = {"general": (GENERAL, 0.6), "document": (DOCUMENT, 0.4)}
NUM_IMAGES = 300
# Bytes of JSON a record, for the disk space needed; measured, rounded up.
RECORD_BYTES = 1200
_POOL = 4096
_BLOCK = 5000

_VOCABULARY = (
    "the of and a to in is with on image its from that this at by an one two three right left "
    "side background foreground light shadow colour red blue green yellow white black dark "
    "bright small large round tall narrow man woman child person people group crowd dog cat "
    "bird horse street house building window door roof wall tower bridge river lake sea "
    "mountain sky cloud tree leaf flower grass field road car bus train bicycle sign letter "
    "word number chart table column row value share percent year month total axis line bar "
    "title caption page form date name address signature tissue cell nucleus stain membrane "
    "vessel section slide margin layer pattern texture surface centre corner edge top bottom "
    "stands sits walks holds wears shows reads contains appears suggests indicates overlooks "
    "surrounds covers reflects leans rests reaches carries visible distinct wooden metallic "
    "glass stone painted printed crowded quiet modern ancient casual formal detailed blurred "
    "vivid muted natural artificial several various possibly slightly prominently carefully "
    "towards between behind above below across along among beneath"
)
_HAN = (
    "这张图片显示了一只猫坐在窗台上看着外面的街道天空是蓝色的有几朵白云树木和房屋在背景中人们"
    "走过红绿灯桌子放着杯子书本电脑大小多少什么颜色位置左边右边前后上下中间数字年份表格标题"
)


def write(folder: str | os.PathLike[str], records: int, seed: int = 0) -> dict[str, Path]:
    """Writes the images and the JSON arrays below ``folder``.

    Args:
        folder: where to; made if absent.
        records: in both files together.
        seed: of everything drawn.

    Returns:
        The JSON file of each data set; image paths are relative to ``folder``.
    """
    folder = Path(folder)
    images = write_images(folder, NUM_IMAGES, seed)
    files = {}
    first = round(records * FILES["general"][1])
    for number, (name, count) in enumerate((("general", first), ("document", records - first))):
        files[name] = folder / f"{name}.json"
        with open(files[name], "w", encoding="utf-8") as file:
            file.write("[")
            for index, row in enumerate(rows(FILES[name][0], count, images, (seed, number))):
                file.write(",\n" if index else "\n")
                file.write(json.dumps(row, ensure_ascii=False))
            file.write("\n]\n")
    return files


def write_images(
    folder: str | os.PathLike[str],
    count: int,
    seed: int = 0,
    size: tuple[int, int] = (64, 48),
    quality: int = 90,
) -> list[str]:
    """Writes JPEG files with the smoothness of photographs; returns their paths in ``folder``."""
    folder = Path(folder)
    random = np.random.default_rng((seed, 7))
    width, height = size
    paths = []
    for index in range(count):
        path = f"images/{index // 100:03}/{index:06}.jpg"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        # Octaves of noise: power falls with frequency, as it does in photographs.
        pixels = np.zeros((height, width, 3), dtype=np.float32)
        for octave in range(2, 8):
            grid = random.normal(size=(2**octave, 2**octave, 3)).astype(np.float32)
            small = Image.fromarray(((grid * 32).clip(-128, 127) + 128).astype(np.uint8))
            layer = np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
            pixels += (layer - 128) * 3 / octave
        image = Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))
        image.save(folder / path, quality=quality)
        paths.append(path)
    return paths


def rows(
    mix: tuple[tuple[str, float], ...], count: int, images: list[str], seed: tuple[int, ...]
) -> Iterator[dict]:
    """``count`` rows of LLaVA JSON.

    Args:
        mix: kinds and their shares, e.g. `GENERAL`.
        count: how many rows.
        images: paths that rows share.
        seed: of everything drawn.
    """
    random = np.random.default_rng(seed)
    sentences, chinese = _sentences(random), _chinese(random)
    kinds = [kind for kind, _ in mix]
    shares = np.array([share for _, share in mix])
    for start in range(0, count, _BLOCK):
        # Drawn a block at a time: one call a value would cost more than everything else.
        size = min(_BLOCK, count - start)
        chosen = random.choice(len(kinds), size, p=shares / shares.sum()).tolist()
        # The paper's captions have some 150 words, questions and answers a few.
        lengths = random.integers(8, 18, size).tolist()
        exchanges = random.integers(3, 10, size).tolist()
        texts = random.integers(0, _POOL, (size, 32)).tolist()
        pictures = random.integers(0, len(images), (size, 4)).tolist()
        for offset in range(size):
            kind = kinds[chosen[offset]]
            pool = chinese if kind == "chinese" else sentences
            picked = [pool[index] for index in texts[offset]]
            shown = [images[index] for index in pictures[offset]]
            turns, used = _conversation(kind, picked, lengths[offset], exchanges[offset])
            row = {"id": f"{kind}-{start + offset}", "source": kind}
            if used:
                row["image"] = shown[0] if used == 1 else shown[:used]
            yield {**row, "conversations": turns}


def _conversation(kind: str, text: list[str], length: int, exchanges: int) -> tuple[list, int]:
    """Turns, and how many images they show."""
    if kind == "caption":
        return _turns([("<image>\n" + text[0], " ".join(text[1 : 1 + length]))]), 1
    if kind == "conversation":
        pairs = [(text[3 * i], " ".join(text[3 * i + 1 : 3 * i + 3])) for i in range(exchanges)]
        pairs[0] = ("<image>\n" + pairs[0][0], pairs[0][1])
        return _turns(pairs), 1
    if kind == "text":
        return _turns([(text[0], " ".join(text[1 : 1 + length]))]), 0
    if kind == "images":
        used = 2 + exchanges % 3
        return _turns([("<image>\n" * used + text[0], text[1])]), used
    return _turns([("<image>\n" + text[0], text[1].split(" ", 3)[0])]), 1


def _turns(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    turns = []
    for question, answer in pairs:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return turns


def _sentences(random: np.random.Generator) -> list[str]:
    """A pool of sentences, words falling off in frequency as Zipf's law has it."""
    vocabulary = _VOCABULARY.split()
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    weights /= weights.sum()
    pool = []
    for _ in range(_POOL):
        words = random.choice(vocabulary, int(random.integers(6, 20)), p=weights).tolist()
        if random.random() < 0.2:
            words.insert(len(words) // 2, str(random.integers(1, 3000)))
        pool.append(" ".join(words).capitalize() + ".")
    return pool


def _chinese(random: np.random.Generator) -> list[str]:
    signs = np.array(list(_HAN))
    return ["".join(random.choice(signs, int(random.integers(6, 30)))) + "。" for _ in range(_POOL)]
