"""The quickstart's *biomedicine* set: tiles of real histology, asked what is measured on them.

Two images: colonic glands stained for FHL2 with DAB (brown) and haematoxylin (scikit-image, no
known copyright restrictions), and a section stained with haematoxylin and eosin (``histo.jpg`` of
stardist, BSD-3-Clause). Colour deconvolution (Ruifrok and Johnston, 2001; ``rgb2hed``) gives the
stains, a watershed on the haematoxylin gives the nuclei; every answer is counted on a tile after
its flips and turns. Questions near a threshold are not asked.

``train`` and ``test`` tiles come from different areas of the images and share no pixel. There are
only two images: the set says whether a model sees, not whether it would read another laboratory's
slides.
"""

import collections
import dataclasses
import functools
import importlib.util
import random
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from llava_mole.data.builders.store import Question, Sizes, build_once, caption, conversation

VERSION = 2
SOURCE = "histology"
TILE = 80  # pixels a side: about 10 nuclei
DAB_THRESHOLD = 0.0588  # Otsu's on the smoothed DAB channel of the whole image
YES_NO = ("yes", "no")
QUADRANTS = ("top left", "top right", "bottom left", "bottom right")
STAIN = "Is this tile stained with DAB or with eosin?"
BROWN_HALF = "Is more than half of the tile stained brown?"
BROWN_SHARE = "How much of the tile is stained brown?"
BROWN_SIDE = "Which side has more brown stain, left or right?"
BROWN_END = "Which part has more brown stain, top or bottom?"
NUCLEI_MANY = "Are there more than ten nuclei?"
NUCLEI_COUNT = "How many nuclei are there?"
NUCLEI_SIDE = "Which side has more nuclei, left or right?"
LARGEST = "In which quadrant is the largest nucleus?"
# Question -> (task, its answers).
QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    STAIN: ("stain", ("DAB", "eosin")),
    BROWN_HALF: ("brown stain", YES_NO),
    BROWN_SHARE: ("brown stain", ("almost none", "a quarter", "half", "almost all")),
    BROWN_SIDE: ("brown stain", ("left", "right")),
    BROWN_END: ("brown stain", ("top", "bottom")),
    NUCLEI_MANY: ("nuclei", YES_NO),
    NUCLEI_COUNT: ("nuclei", ("fewer than 6", "6 to 10", "11 to 15", "more than 15")),
    NUCLEI_SIDE: ("nuclei", ("left", "right")),
    LARGEST: ("largest nucleus", QUADRANTS),
}


@dataclasses.dataclass(frozen=True)
class Slide:
    """An image with what is measured on it.

    Attributes:
        pixels: (H, W, 3) uint8.
        nuclei: (H, W) int, 0 where there is no nucleus, else its number.
        brown: (H, W) bool, stained with DAB; ``None`` for a slide without DAB.
        areas: split -> (top, bottom, left, right) in pixels; the splits' areas don't touch.
    """

    pixels: np.ndarray
    nuclei: np.ndarray
    brown: np.ndarray | None
    areas: dict[str, tuple[int, int, int, int]]


def build(
    output_dir: str | Path, seed: int, sizes: Sizes, progress_position: int | None = None
) -> None:
    """Writes the set to ``output_dir``; does nothing if it is there already.

    Raises:
        ValueError: scikit-image or stardist is missing.
    """
    settings = {"set": "biomedicine", "version": VERSION, "seed": seed, "sizes": vars(sizes)}
    build_once(output_dir, settings, lambda at: _produce(at, seed, sizes, progress_position))


def _produce(at: Path, seed: int, sizes: Sizes, position: int | None) -> dict[str, list[dict]]:
    splits: dict[str, list[dict]] = {"pretrain": [], "train": [], "test": []}
    texts = list(QUESTIONS)
    for split, size in (("train", sizes.train), ("test", sizes.test)):
        rng = random.Random(f"{seed}/{split}")
        used: collections.Counter = collections.Counter()
        for number in tqdm(range(size), desc=f"biomedicine {split}", position=position):
            text = texts[number % len(texts)]
            task, answers = QUESTIONS[text]
            answer = answers[(number // len(texts)) % len(answers)]
            pixels, facts = _tile(split, text, answer, rng)
            name = f"biomedicine-{split}-{number}"
            file = f"images/{split}_{number:05d}.png"
            Image.fromarray(pixels).save(at / file)
            if split == "train" and number < sizes.pretrain:
                described = _caption(facts)
                splits["pretrain"].append(caption(f"{name}-caption", file, SOURCE, described))
            asked = [text]
            if split == "train":
                others = rng.sample([other for other in facts if other != text], len(facts) - 1)
                asked += sorted(others, key=lambda other: _surplus(other, facts, used))[:2]
                rng.shuffle(asked)
            used.update((text, facts[text]) for text in asked)
            questions = [Question(QUESTIONS[text][0], text, facts[text]) for text in asked]
            splits[split].append(conversation(name, file, SOURCE, questions, task=task))
    return splits


def _surplus(text: str, facts: dict[str, str], used: collections.Counter) -> int:
    """How much more often this answer was given to ``text`` than its rarest one."""
    return used[text, facts[text]] - min(used[text, answer] for answer in QUESTIONS[text][1])


def _tile(
    split: str, text: str, answer: str, rng: random.Random
) -> tuple[np.ndarray, dict[str, str]]:
    """A tile about which ``text`` has ``answer``, and what else can be said about it."""
    for _ in range(20_000):
        slide = rng.choice(slides())
        top, bottom, left, right = slide.areas[split]
        y, x = rng.randint(top, bottom - TILE), rng.randint(left, right - TILE)
        turns, flip = rng.randrange(4), rng.random() < 0.5

        def cut(plane: np.ndarray, y=y, x=x, turns=turns, flip=flip) -> np.ndarray:
            plane = np.rot90(plane[y : y + TILE, x : x + TILE], turns)
            return np.ascontiguousarray(plane[:, ::-1] if flip else plane)

        brown = None if slide.brown is None else cut(slide.brown)
        facts = measure(cut(slide.nuclei), brown)
        if facts.get(text) == answer and len(facts) >= 3:
            return cut(slide.pixels), facts
    raise AssertionError(f"no {split} tile answers {text!r} with {answer!r}")


def measure(nuclei: np.ndarray, brown: np.ndarray | None) -> dict[str, str]:
    """The answers that a tile gives clearly.

    Args:
        nuclei: (S, S) int labels, 0 outside nuclei.
        brown: (S, S) bool, or ``None`` for a tile stained without DAB.
    """
    side = nuclei.shape[0]
    facts = {STAIN: "eosin" if brown is None else "DAB"}
    if brown is not None:
        share = brown.mean()
        if abs(share - 0.5) > 0.1:
            facts[BROWN_HALF] = "yes" if share > 0.5 else "no"
        for low, high, words in (
            (-1, 0.06, "almost none"),
            (0.17, 0.33, "a quarter"),
            (0.42, 0.58, "half"),
            (0.85, 2, "almost all"),
        ):
            if low < share < high:
                facts[BROWN_SHARE] = words
        across = brown[:, : side // 2].mean() - brown[:, side // 2 :].mean()
        down = brown[: side // 2].mean() - brown[side // 2 :].mean()
        if abs(across) > 0.2:
            facts[BROWN_SIDE] = "left" if across > 0 else "right"
        if abs(down) > 0.2:
            facts[BROWN_END] = "top" if down > 0 else "bottom"
    areas, centers = _nuclei(nuclei)
    count = len(areas)
    if abs(count - 10.5) > 2:
        facts[NUCLEI_MANY] = "yes" if count > 10 else "no"
    bins = ("fewer than 6", "6 to 10", "11 to 15", "more than 15")
    facts[NUCLEI_COUNT] = bins[min(3, max(0, (count - 1) // 5))]
    left = int((centers[:, 1] < side / 2).sum())
    if count and abs(2 * left - count) >= max(3, 0.4 * count):
        facts[NUCLEI_SIDE] = "left" if 2 * left > count else "right"
    ranked = np.sort(areas)
    # Not asked where DAB covers the nuclei: there the watershed's sizes are its own.
    if brown is None and count > 1 and ranked[-1] > 1.4 * ranked[-2]:
        y, x = centers[areas.argmax()]
        if min(abs(y - side / 2), abs(x - side / 2)) > 0.06 * side:
            facts[LARGEST] = QUADRANTS[2 * int(y > side / 2) + int(x > side / 2)]
    return facts


def _nuclei(labels: np.ndarray, smallest: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Areas (n,) in pixels and centres (n, 2) as (y, x) of the nuclei in a tile.

    Slivers of fewer than ``smallest`` pixels, which the tile's edge cuts off, are not counted.
    """
    numbers = labels.reshape(-1)
    areas = np.bincount(numbers)
    y, x = np.indices(labels.shape).reshape(2, -1)
    kept = np.flatnonzero(areas >= smallest)
    kept = kept[kept != 0]
    sums = [np.bincount(numbers, weights=axis)[kept] for axis in (y, x)]
    return areas[kept], np.stack(sums, axis=1) / areas[kept, None]


@functools.cache
def slides() -> tuple[Slide, ...]:
    """Both slides with their measurements (2 s once).

    Raises:
        ValueError: scikit-image or stardist is not installed.
    """
    try:
        from skimage import color, data, filters
    except ImportError as error:
        raise ValueError(
            "the biomedicine set needs scikit-image: pip install scikit-image"
        ) from error
    # Only its picture is wanted: importing stardist would need tensorflow.
    found = importlib.util.find_spec("stardist")
    if found is None or found.origin is None:
        raise ValueError(
            "the biomedicine set needs stardist's picture: pip install --no-deps stardist"
        )
    dab = data.immunohistochemistry()
    eosin = np.array(
        Image.open(Path(found.origin).parent / "data" / "images" / "histo.jpg").convert("RGB")
    )
    brown = filters.gaussian(color.rgb2hed(dab)[..., 2], 1) > DAB_THRESHOLD
    height, width = dab.shape[:2]
    band = {"train": (0, 340, 0, width), "test": (348, height, 0, width)}
    side = {"train": (0, eosin.shape[0], 0, 330), "test": (0, eosin.shape[0], 338, eosin.shape[1])}
    return (
        Slide(dab, find_nuclei(dab), brown, band),
        Slide(eosin, find_nuclei(eosin), None, side),
    )


def find_nuclei(pixels: np.ndarray) -> np.ndarray:
    """Labels the nuclei of a haematoxylin-stained image: (H, W, 3) uint8 -> (H, W) int.

    Haematoxylin above both the image's and the neighbourhood's threshold, opened by a disk, split
    by a watershed on the distance to the edge.
    """
    from scipy import ndimage
    from skimage import color, feature, filters, measure, morphology, segmentation

    stain = filters.gaussian(color.rgb2hed(pixels)[..., 0], 1.5)
    mask = (stain > 0.9 * filters.threshold_otsu(stain)) & (
        stain > filters.threshold_local(stain, 51)
    )
    mask = morphology.remove_small_objects(
        morphology.opening(mask, morphology.disk(2)), max_size=25
    )
    depth = filters.gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = feature.peak_local_max(depth, min_distance=4, labels=measure.label(mask))
    seeds = np.zeros(mask.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, seeds, mask=mask)


def _caption(facts: dict[str, str]) -> str:
    """One line that says what the questions will ask about."""
    parts = [f"a histology tile stained with {facts[STAIN]}"]
    if BROWN_SHARE in facts:
        parts.append(f"{facts[BROWN_SHARE]} of it brown")
    if BROWN_SIDE in facts:
        parts.append(f"more brown on the {facts[BROWN_SIDE]}")
    if BROWN_END in facts:
        parts.append(f"more brown at the {facts[BROWN_END]}")
    parts.append(f"{facts[NUCLEI_COUNT]} nuclei")
    return ", ".join(parts)
