"""95 % intervals of mean scores."""

import math

import numpy as np

# Draws held at a time: 8 MB.
_CHUNK = 1_000_000


def wilson_interval(hits: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); 95 % at the default ``z``.

    Returns:
        Lower and upper end, within [0, 1]. ``(0.0, 1.0)`` where ``total`` is 0.
    """
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    denominator = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / denominator
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / denominator
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(
    scores: np.ndarray, clusters: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean score by the cluster bootstrap.

    Questions about one image are not independent: images are resampled, all questions of one
    together (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8).

    Where every replicate is the same (all scores are 0, or all 1, or every cluster has the same
    mean) the bootstrap says nothing: then it is Wilson's interval of the mean score, with as many
    trials as there are clusters.

    Args:
        scores: ``(n,)`` in [0, 1].
        clusters: ``(n,)`` integer label of the cluster, such as the image, of each score.
        resamples: number of replicates.
        seed: the same seed gives the same interval.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: no scores, or not as many labels as scores.
    """
    scores = np.asarray(scores, dtype=np.float64)
    means = bootstrap_means(scores, clusters, resamples, seed)
    if np.ptp(means) == 0:
        number = len(np.unique(clusters))
        return wilson_interval(float(scores.mean()) * number, number)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def bootstrap_means(
    scores: np.ndarray, clusters: np.ndarray, resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Replicates of the mean score by the cluster bootstrap.

    As many clusters as there are get drawn with replacement; the replicate is the sum of their
    scores over the number of their scores. Replicates of independent parts may be added up, each
    part with a seed of its own.

    Args:
        scores: ``(n,)`` in [0, 1].
        clusters: ``(n,)`` integer label of the cluster of each score.
        resamples: number of replicates.
        seed: the same seed gives the same replicates.

    Returns:
        ``(resamples,)`` float64.

    Raises:
        ValueError: no scores, or not as many labels as scores.
    """
    scores, clusters = np.asarray(scores, dtype=np.float64), np.asarray(clusters)
    if scores.size == 0:
        raise ValueError("no scores: the mean of nothing has no interval")
    if scores.ndim != 1 or scores.shape != clusters.shape:
        raise ValueError(
            f"scores and clusters must be (n,) alike, not {scores.shape} and {clusters.shape}"
        )
    labels, members = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(members, weights=scores), np.bincount(members)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(labels))
    parts = []
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), len(labels))
        drawn = generator.integers(len(labels), size=shape)
        parts.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(parts)
