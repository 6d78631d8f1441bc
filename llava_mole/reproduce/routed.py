"""Where a run's routers send the benchmarks' tokens, in few enough numbers for a result line."""

from collections.abc import Iterable, Sequence
from typing import Any

from llava_mole.analysis import routing
from llava_mole.data.records import IMAGE_TOKEN, Record, Turn
from llava_mole.eval.questions import Question
from llava_mole.eval.task import Task

# Shares in a line: layers x experts x benchmarks. Above, layers are left out evenly.
_MOST_SHARES = 160
_SHUFFLES = 100


def routing_of_tasks(
    model: Any, processor: Any, tasks: Sequence[Task], questions: int, batch_size: int
) -> dict[str, Any] | None:
    """Load per benchmark, layer and expert, and how far it tells the benchmarks apart.

    Args:
        model: with a MoLE adapter; any other gives None.
        processor: its processor.
        tasks: what it was asked; the accepted answer is put behind each question, as in training.
        questions: first questions of each; 0 gives None.
        batch_size: questions that are routed at once.

    Returns:
        ``layers``; ``load``: benchmark to layer to each expert's share of the tokens in per mille;
        ``mutual_information`` of benchmark and expert in bits, mean over layers, less what chance
        gives; ``kind_information`` of a token's kind (image, question, answer) and its expert, mean
        over layers, all benchmarks' tokens together.
    """
    try:
        layers, experts = routing.layers_of(model), routing.experts_of(model)
    except ValueError:
        return None
    if not questions:
        return None
    encoder = routing.encoder_of(processor)
    counts = {}
    for task in tasks:
        asked = [task.prompting.apply(question) for question in task.questions[:questions]]
        root = asked[0].image_root
        records = [_record(question) for question in asked]
        batches = routing.batches(records, root, encoder, processor, batch_size)
        counts[task.benchmark.name] = routing.count(model, batches)
    step = -(-len(layers) * experts * len(counts) // _MOST_SHARES)
    places = range(0, len(layers), step)
    information = None
    if len(counts) > 1 and experts > 1:
        figure = routing.compare(counts, shuffles=_SHUFFLES).information
        information = round(float(figure.above_chance.mean()), 5)
    return {
        "layers": [layers[place] for place in places],
        "load": {
            name: [[round(1000 * share) for share in one.mean[place].tolist()] for place in places]
            for name, one in counts.items()
        },
        "mutual_information": information,
        "kind_information": _kind_information(counts.values()),
    }


def _kind_information(counts: Iterable[routing.Counts]) -> float:
    tokens = sum(one.tokens.sum(1) for one in counts)
    return round(float(routing.mutual_information(tokens.transpose(0, 1)).mean()), 5)


def _record(question: Question) -> Record:
    turns = [Turn(turn["role"], turn["content"]) for turn in question.turns]
    slots = sum(turn.content.count(IMAGE_TOKEN) for turn in turns if turn.role == "user")
    images = (question.image,) if question.image is not None and slots else ()
    answer = Turn("assistant", question.references[0])
    return Record(question.id, "", "", images, (*turns, answer), question.place, 0)
