"""The plainest rule: two short answers are the same."""


def exact_match(prediction: str, reference: str) -> bool:
    """Whether two short answers are the same but for case, outer space and one final period."""
    return _normalise(prediction) == _normalise(reference)


def _normalise(text: str) -> str:
    return text.strip().removesuffix(".").strip().casefold()
