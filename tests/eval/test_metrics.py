"""Scores against published vectors and the official scorers' own; intervals against slow loops.

`official_scores.json` holds what the official scorers gave on inputs made up to touch every rule.
"""

import itertools
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import pytest

from llava_mole.eval.metrics import (
    METRICS,
    anls,
    bootstrap_interval,
    bootstrap_means,
    closed_accuracy,
    exact_match,
    open_recall,
    relaxed_accuracy,
    vqa_accuracy,
    wilson_interval,
    word_match,
)

OFFICIAL = json.loads(Path(__file__).with_name("official_scores.json").read_text(encoding="utf-8"))[
    "vectors"
]
SCORERS = {
    "word_match": word_match,
    "relaxed_accuracy": relaxed_accuracy,
    "anls_due": lambda prediction, references: anls(prediction, references, rule="due"),
    "anls_lmms": lambda prediction, references: anls(prediction, references, rule="lmms"),
    "open_recall": open_recall,
    "closed_accuracy": closed_accuracy,
    "vqa_accuracy": vqa_accuracy,
}


@pytest.mark.parametrize("name", SCORERS)
def test_equals_the_official_scorer(name):
    vectors = [vector[1:] for vector in OFFICIAL if vector[0] == name]
    assert len(vectors) >= 50
    scores = [SCORERS[name](prediction, reference) for prediction, reference, _ in vectors]
    wrong = [v for v, score in zip(vectors, scores, strict=True) if abs(v[2] - score) > 1e-12]
    assert not wrong


def test_exact_match():
    assert exact_match("Yes", "yes")
    assert exact_match(" red. ", "red")
    assert not exact_match("red blue", "red")
    assert not exact_match("", "no")


@pytest.mark.parametrize(
    ("answer", "truth", "ehub", "strict"),
    [
        ("Answer: Yes", "Yes.", True, True),
        ("Yes, no doubt", "No.", True, False),
        ("There are two dogs", "2", True, True),
        ("12 dogs", "2", False, False),
        ("cat-like toy", "cat", True, True),
        ("catlike", "cat", False, False),
        ("$9.00", "$9.00", False, True),
        ("50%", "50%", False, True),
        ("anything", "The", True, False),
        ("", "The", False, False),
        ("1,000 people", "1000", True, True),
        ("U.S.", "us", True, True),
        ("blue car", ["red", "blue"], True, True),
        ("x", [], False, False),
        # What else the strict rule is about.
        ("No, yes is wrong", "yes", True, False),
        ("yes,no way, sir", "Yes", False, True),
        ("A casino? Yes", "yes", True, True),
        ("I see nothing", "no", False, False),
        ("It costs $9.00.", ("free", "$9.00"), False, True),
        ("150% of it", "50%", False, False),
    ],
)
def test_word_match(answer, truth, ehub, strict):
    assert word_match(answer, truth) is ehub
    assert word_match(answer, truth, rule="strict") is strict


@pytest.mark.parametrize(
    ("prediction", "target", "chartqa", "strict"),
    [
        ("95", "100", True, True),
        ("94.9", "100", False, False),
        ("100", "95", False, False),
        ("96%", "100%", True, True),
        ("0.96", "100%", True, True),
        ("96", "100%", False, False),
        ("5%", "0.05", True, True),
        ("0", "0", True, True),
        ("0.0", "0", False, True),
        ("1,000", "1000", False, True),
        ("2014", "1920", True, False),
        ("No", "no", True, True),
        ("no.", "No", False, True),
        ("14 %", "14%", True, True),
        ("-95", "-100", True, True),
        # What else the strict rule is about.
        ("1920", "1920.", True, True),
        ("1,920.0", "1920", False, True),
        ("1900", "1,920", False, True),
        ("1900", "1920.0", True, True),
        ("1450", "1499", True, True),
        ("2100", "2101", True, True),
        ("2000", "2100", True, False),
        ("1501", "1500", True, False),
        ("1,234,567", "1234567", False, True),
        ("1,23", "123", False, False),
        ("95%", "100%", False, True),
        ("0.01", "0", False, False),
        ("0%", "0", False, True),
        ("1_000", "1000", True, False),
        ("inf", "inf", False, True),
        ("Blue. ", "blue", False, True),
    ],
)
def test_relaxed_accuracy(prediction, target, chartqa, strict):
    assert relaxed_accuracy(prediction, target) is chartqa
    assert relaxed_accuracy(prediction, target, rule="strict") is strict


@pytest.mark.parametrize(
    ("references", "prediction", "due", "lmms"),
    [
        (["Coca Cola", "Coca Cola Company"], "CocaCola", 8 / 9, 8 / 9),
        (["Coca Cola", "Coca Cola Company"], "The Coca", 0, 0),
        (["Coca Cola", "Coca Cola Company"], "Cola", 0, 0),
        ("ab", "ax", 0, 0.5),
        ("abc", "abx", 2 / 3, 2 / 3),
        ("ITC  Limited", "itc limited", 11 / 12, 1),
        ("1/8/93", "1/8/93.", 6 / 7, 6 / 7),
        ("$1,200", "1200", 2 / 3, 2 / 3),
        ("yes", "", 0, 0),
        ("", "", 1, 1),
        ("University of California", "university of california, san diego", 24 / 35, 24 / 35),
    ],
)
def test_anls(references, prediction, due, lmms):
    assert anls(prediction, references) == pytest.approx(due, abs=1e-12)
    assert anls(prediction, references, rule="lmms") == pytest.approx(lmms, abs=1e-12)


@pytest.mark.parametrize(
    ("reference", "prediction", "published", "strict"),
    [
        ("in the canals of hering", "canals of hering", 3 / 4, 3 / 4),
        ("in the canals of hering", "The stem cells are located in the liver", 1 / 4, 1 / 4),
        ("endocrine", "endocrine system", 1, 1),
        ("squamous cell carcinoma", "carcinoma carcinoma carcinoma", 3 / 5, 1 / 3),
        ("a salt-and-pepper pattern", "salt and pepper", 3 / 4, 3 / 4),
        ("liver", "livers", 0, 0),
        ("liver", "", 0, 0),
        ("2", "two", 1, 1),
        ("the", "the", 0, 0),
        ("hematoxylin & eosin", "hematoxylin and eosin", 2 / 3, 2 / 3),
        ("cell cell", "cell", 1, 1 / 2),
    ],
)
def test_open_recall(reference, prediction, published, strict):
    assert open_recall(prediction, reference) == pytest.approx(published, abs=1e-12)
    assert open_recall(prediction, reference, rule="strict") == pytest.approx(strict, abs=1e-12)


@pytest.mark.parametrize(
    ("reference", "prediction", "published", "strict"),
    [
        ("yes", "yes", True, True),
        ("yes", "YES.", True, True),
        ("yes", "no", False, False),
        ("no", "It is normal", True, False),
        ("no", "unknown", True, False),
        ("no", "none", False, False),
        ("no", "Yes, it is normal", True, False),
        ("no", "", False, False),
        ("yes", "The image shows cells", False, False),
        ("No.", "There is no sign of it, yes", True, True),
    ],
)
def test_closed_accuracy(reference, prediction, published, strict):
    assert closed_accuracy(prediction, reference) is published
    assert closed_accuracy(prediction, reference, rule="strict") is strict


@pytest.mark.parametrize(("matching", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1)])
def test_vqa_accuracy_of_ten_people(matching, score):
    people = ["Coca-Cola"] * matching + [f"other {i}" for i in range(10 - matching)]
    assert vqa_accuracy("coca cola.", people) == pytest.approx(score, abs=1e-12)


def test_every_metric_takes_several_references_and_keeps_the_best():
    two = {name: score("red", ["blue", "red"]) for name, score in METRICS.items()}
    assert two == dict.fromkeys(METRICS, 1.0) | {"closed_accuracy": 0.0, "vqa_accuracy": 1 / 6}
    assert METRICS["closed_accuracy"]("yes", ["no", "yes"]) == 1.0
    assert METRICS["relaxed_accuracy"]("2", ["1", "3"]) == 0.0
    assert all(type(score("no", ["no", "no"])) is float for score in METRICS.values())


def test_unknown_rules_and_too_few_references_are_refused():
    for metric in (word_match, relaxed_accuracy, anls, open_recall, closed_accuracy):
        with pytest.raises(ValueError, match=r"no rule 'lenient'; there are .*, \w+"):
            metric("a", "a", rule="lenient")
    with pytest.raises(ValueError, match="at least one reference"):
        anls("a", [])
    for people in ([], ["red"], "red"):
        with pytest.raises(ValueError, match="fewer than two"):
            vqa_accuracy("red", people)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_interval_equals_published_values(hits, total, low, high):
    assert wilson_interval(hits, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_bootstrap_means_have_the_exact_distribution():
    # Three clusters of unequal size: all 27 equally likely resamples can be written down.
    groups = {7: [1.0], -2: [0.0, 0.5], 30: [0.25, 1.0, 0.0, 0.0]}
    exact: dict[float, float] = {}
    for drawn in itertools.product(groups.values(), repeat=3):
        scores = [score for group in drawn for score in group]
        mean = round(sum(scores) / len(scores), 9)
        exact[mean] = exact.get(mean, 0) + 1 / 27
    clusters, scores = zip(*((c, s) for c, group in groups.items() for s in group), strict=True)
    means = bootstrap_means(np.array(scores), np.array(clusters), resamples=40_000, seed=3)
    values, counts = np.unique(means.round(9), return_counts=True)
    assert dict(zip(values, counts / 40_000, strict=True)) == pytest.approx(exact, abs=0.01)


def test_bootstrap_interval_equals_a_slow_loop():
    rng = np.random.default_rng(5)
    clusters = rng.integers(40, size=200)
    scores = (rng.random(200) < rng.random(40)[clusters]).astype(float)
    groups = [scores[clusters == label].tolist() for label in set(clusters.tolist())]
    loop, replicates = random.Random(1), []
    for _ in range(20_000):
        drawn = [score for _ in groups for score in loop.choice(groups)]
        replicates.append(sum(drawn) / len(drawn))
    replicates.sort()
    expected = replicates[499], replicates[19_499]
    found = bootstrap_interval(scores, clusters, resamples=20_000, seed=2)
    assert found == pytest.approx(expected, abs=0.006)


def test_bootstrap_interval_of_a_large_sample_is_the_normal_one():
    scores = np.random.default_rng(0).random(20_000) ** 2
    half = 1.96 * scores.std() / math.sqrt(len(scores))
    low, high = bootstrap_interval(scores, np.arange(len(scores)), resamples=4000)
    assert low == pytest.approx(scores.mean() - half, abs=0.08 * half)
    assert high == pytest.approx(scores.mean() + half, abs=0.08 * half)


def test_repeating_a_score_within_its_cluster_adds_no_certainty():
    scores = (np.random.default_rng(1).random(300) < 0.4).astype(float)
    repeated = scores.repeat(9)
    width = np.diff(bootstrap_interval(scores, np.arange(300)))
    assert np.diff(bootstrap_interval(repeated, np.arange(300).repeat(9))) == pytest.approx(width)
    independent = np.diff(bootstrap_interval(repeated, np.arange(2700)))
    assert independent == pytest.approx(width / 3, rel=0.1)


def test_bootstrap_of_thousands_of_clusters_is_quick_whole_and_fixed_by_its_seed():
    scores, clusters = np.random.default_rng(3).random(6000), np.arange(6000) // 2
    start = time.perf_counter()
    means = bootstrap_means(scores, clusters)
    assert time.perf_counter() - start < 2
    # More draws than are held at a time, in chunks that do not divide 2000.
    assert len(means) == len(set(means.tolist())) == 2000
    assert np.array_equal(means, bootstrap_means(scores, clusters))
    assert not np.array_equal(means, bootstrap_means(scores, clusters, seed=1))


@pytest.mark.parametrize("hit", [0, 1])
def test_bootstrap_of_equal_hits_is_wilsons_interval(hit):
    interval = bootstrap_interval(np.full(20, hit), np.arange(20) // 2)
    # Ten images with two questions each are ten trials.
    assert interval == wilson_interval(10 * hit, 10)
    assert interval[0] < interval[1]
    # One right and one wrong about each image: equal clusters are no certainty either.
    paired = bootstrap_interval(np.arange(20) % 2, np.arange(20) // 2)
    assert paired == wilson_interval(5, 10)


def test_bootstrap_refuses_nothing_and_unequal_lengths():
    with pytest.raises(ValueError, match="no scores"):
        bootstrap_interval(np.array([]), np.array([], dtype=int))
    with pytest.raises(ValueError, match="alike"):
        bootstrap_means(np.ones(3), np.arange(2))
