"""What must be known beside the paper's tables, and how the verdicts are to be read."""

from collections.abc import Iterator, Mapping, Sequence

from llava_mole.reproduce import intervals
from llava_mole.reproduce.report.content import number
from llava_mole.reproduce.report.results import Results

# By the table they stand beside; numbers are the paper's own, so they stand at its scale only.
TABLES: Mapping[str, Sequence[str]] = {
    "2": (
        "Row 1 is the official LLaVA-1.5 checkpoint: here llava-hf/llava-1.5-7b-hf is evaluated. "
        "Row 2 (LLaVA-Med) is quoted as printed.",
        "Row 10 prints All 292.0 where its five columns sum to 292.6; rounding five columns and "
        "their sum accounts for 0.3 at most.",
        "The introduction's LLaVA-Mix of 295.8 (Figure 1) is row 11, which is trained twice as "
        "long; row 8, trained once, has 297.1.",
        "The text's \"improves by 3.8\" of row 11 is 295.8 against row 10's 292.0, another "
        "mixture; against row 8, the same mixture, row 11 is 1.3 lower.",
    ),
    "3": (
        "Row 8 prints All 310.2 where its five columns sum to 310.0: the most that any row but "
        "Table 2's row 10 is off, and within what rounding accounts for (0.3).",
    ),
    "5": ("Row 5, dense with 3 experts, ran out of memory in the paper and has no numbers there.",),
}


def notes_of(results: Results) -> Iterator[str]:
    """How to read the verdicts, as far as it concerns what is there."""
    level = f"{100 * results.claims.confidence:g} %"
    if results.scale.label:
        yield results.scale.label
    if not results.comparable:
        yield (
            "The paper's printed numbers appear here only as verdicts by print, with the "
            "differences behind them: nothing else on this page can be held against them. Rows "
            "bear the paper's names, ranks included; the scale's own ranks stand in proportion."
        )
    yield (
        "Claims, comparisons and margins were fixed before the runs that they are judged by, but "
        "where a claim's source says otherwise. A comparison is supported if "
        f"the {level} interval of its difference lies wholly where it is expected, not supported "
        "if it lies wholly elsewhere, and undecided otherwise. A claim is supported if all its "
        "comparisons are, not supported if one is not, and not measured while rows are missing. By "
        "print, the difference of the printed numbers decides; it has no interval, so that verdict "
        "says nothing of chance."
    )
    yield (
        f"Intervals are {level} per comparison. That a claim is supported does not get easier by "
        "having many comparisons, as all must be; that one of many is not supported by chance "
        "does: beside such a verdict stands p of the expectation, two-sided and adjusted over the "
        f"claim's comparisons (Holm); from {1 - results.claims.confidence:g} on, chance alone may "
        f"do that. Margins, in points: {_margins(results)}."
    )
    kinds = {
        one.difference.kind
        for judgement in results.judgements
        for one in judgement.outcomes
        if one.difference
    }
    if intervals.SEEDS in kinds:
        yield (
            "With several seeds, both rows of a comparison have the same ones, and the interval is "
            "Student's of the mean of the seeds' differences (assumed normal and independent). It "
            "covers how trainings vary, for these data and test questions. p (sign flips) "
            "is of no difference, two-sided, by flipping the differences' signs (Fisher's "
            "randomisation test)."
        )
    if intervals.QUESTIONS in kinds:
        yield (
            "Where both rows share one seed only, the interval is made of their bootstrap "
            "intervals over questions, as if independent: conservative for the questions, but it "
            "knows nothing of how another training would have come out."
        )
    if any(one.control for judgement in results.judgements for one in judgement.outcomes):
        yield (
            "Beside a comparison of LLaVA-MoLE stands the same difference for the plain LoRA of as "
            "many trainable parameters. It decides nothing there, but what both reach is not "
            "owed to the mixture of experts; C8 compares the two."
        )


def _margins(results: Results) -> str:
    margins = results.claims.margins.get(results.scale.name, {})
    return ", ".join(f"{column} {number(value, 1)}" for column, value in margins.items()) or "none"
