"""A benchmark's answers to scores, and scores to the lines of its result table."""

from collections.abc import Sequence

import numpy as np

from llava_mole.eval.ask import image_key
from llava_mole.eval.benchmarks import Benchmark
from llava_mole.eval.metrics import bootstrap_interval, bootstrap_means
from llava_mole.eval.questions import Question
from llava_mole.eval.scores import Answer, Estimate, Line, Scored


def score(
    benchmark: Benchmark, questions: Sequence[Question], answers: Sequence[Answer]
) -> list[Scored]:
    """Each answer by the rule of its question's part; one that could not be asked scores 0."""
    scored = []
    for question, answer in zip(questions, answers, strict=True):
        rule = benchmark.rules[question.part]
        said = answer.prediction
        strict = None
        if rule.strict is not None:
            strict = 0.0 if said is None else float(rule.strict(said, question.references))
        value = 0.0 if said is None else float(rule.score(said, question.references))
        scored.append(Scored(question, answer, value, strict))
    return scored


def lines(benchmark: Benchmark, scored: Sequence[Scored]) -> list[Line]:
    """The total, if there is one, then each part, each followed by its data sets.

    A part is a line of its own where there are several. Intervals resample images, since questions
    about one image are not independent; parts are taken to be independent of each other.
    """
    parts = {part: [s for s in scored if s.question.part == part] for part in benchmark.rules}
    parts = {part: members for part, members in parts.items() if members}
    found = []
    if benchmark.total:
        found.append(_total(benchmark, parts))
    for part, members in parts.items():
        if len(parts) > 1 or not benchmark.total:
            found.append(_line("part", part, part, members))
        datasets = dict.fromkeys(s.question.dataset for s in members if s.question.dataset)
        found.extend(
            _line("dataset", name, part, [s for s in members if s.question.dataset == name])
            for name in datasets
        )
    return found


def estimate(values: Sequence[float], questions: Sequence[Question]) -> Estimate:
    """Mean of ``values`` in per cent, with the 95 % interval of `bootstrap_interval`."""
    low, high = bootstrap_interval(np.asarray(values), _images(questions))
    return Estimate(100 * float(np.mean(values)), 100 * low, 100 * high)


def _total(benchmark: Benchmark, parts: dict[str, list[Scored]]) -> Line:
    everything = [s for members in parts.values() for s in members]
    line = _line("total", benchmark.total, "", everything)
    if benchmark.total_is == "mean" or len(parts) == 1:
        return line
    return Line(
        kind="total",
        name=benchmark.total,
        part="",
        questions=line.questions,
        failed=line.failed,
        score=_sum([[s.score for s in members] for members in parts.values()], parts),
        strict=None
        if line.strict is None
        else _sum([[s.strict for s in members] for members in parts.values()], parts),
    )


def _sum(values: list[list[float]], parts: dict[str, list[Scored]]) -> Estimate:
    """Sum of the parts' means in per cent."""
    replicates = sum(
        _replicates(np.asarray(own), _images([s.question for s in members]), seed=index)
        for index, (own, members) in enumerate(zip(values, parts.values(), strict=True))
    )
    value = float(sum(map(np.mean, values)))
    low, high = np.quantile(replicates, (0.025, 0.975))
    # Draws around no hit at all lie above it.
    return Estimate(100 * value, 100 * min(float(low), value), 100 * max(float(high), value))


def _replicates(scores: np.ndarray, images: np.ndarray, seed: int) -> np.ndarray:
    """Replicates of a part's mean; of one that is all 0 or all 1, draws around its hits.

    There the bootstrap has no width, and the sum would seem certain. Draws are from Jeffreys'
    posterior of a proportion, whose interval is close to Wilson's.
    """
    replicates = bootstrap_means(scores, images, seed=seed)
    if scores[0] in (0, 1) and (scores == scores[0]).all():
        hits, misses = scores.sum(), (1 - scores).sum()
        generator = np.random.default_rng(seed)
        return generator.beta(hits + 0.5, misses + 0.5, size=len(replicates))
    return replicates


def _line(kind: str, name: str, part: str, members: list[Scored]) -> Line:
    questions = [s.question for s in members]
    strict = [s.strict for s in members]
    return Line(
        kind=kind,
        name=name,
        part=part,
        questions=len(members),
        failed=sum(s.answer.prediction is None for s in members),
        score=estimate([s.score for s in members], questions),
        strict=None if None in strict else estimate(strict, questions),
    )


def _images(questions: Sequence[Question]) -> np.ndarray:
    """A label for each question, the same for the same image; text alone has one of its own."""
    labels: dict = {}
    return np.array(
        [
            labels.setdefault(image_key(question) or ("text", index), len(labels))
            for index, question in enumerate(questions)
        ]
    )
