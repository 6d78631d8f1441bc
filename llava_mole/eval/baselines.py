"""What can be scored without seeing the image: the majority answer, and shuffled images."""

import collections
import dataclasses
import random
from collections.abc import Iterable, Sequence

from llava_mole.data.records import Record
from llava_mole.eval.ask import image_key
from llava_mole.eval.questions import Question, plain_text
from llava_mole.eval.scores import Answer


def majority_answers(questions: Sequence[Question], training: Iterable[Record]) -> list[Answer]:
    """A question's most frequent answer in the training set, for each of ``questions``.

    Every turn of a training record counts. The same question text decides where training has it,
    else the same kind of question (a record's ``task``), else all of training: the best that can
    be done from the words alone.

    Raises:
        ValueError: the training set is empty.
    """
    by_text: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    by_task: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    overall: collections.Counter = collections.Counter()
    for record in training:
        for turn, answer in zip(record.turns[::2], record.turns[1::2], strict=True):
            for counter in (by_text[plain_text(turn)], by_task[record.task], overall):
                counter[answer.content] += 1
    if not overall:
        raise ValueError("the majority answer needs a training set with at least one record")
    answers = []
    for question in questions:
        counter = by_text.get(question.text) or by_task.get(question.dataset) or overall
        answers.append(Answer(question.id, counter.most_common(1)[0][0]))
    return answers


def with_shuffled_images(questions: Sequence[Question], seed: int) -> list[Question]:
    """The same questions, each beside another question's image; text alone stays as it is.

    Raises:
        ValueError: there is no other image to take.
    """
    chooser = random.Random(seed)
    shown = {image_key(q): q for q in questions if q.image is not None}
    if len(shown) == 1:
        raise ValueError(
            f"{next(iter(shown.values())).place}: all questions are about one image; shuffling "
            "images needs at least two"
        )
    keys = list(shown)
    shuffled = []
    for question in questions:
        if question.image is not None:
            other = chooser.choice(keys)
            while other == image_key(question):
                other = chooser.choice(keys)
            question = dataclasses.replace(
                question, image=shown[other].image, image_root=shown[other].image_root
            )
        shuffled.append(question)
    return shuffled
