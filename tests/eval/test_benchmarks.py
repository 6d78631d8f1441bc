"""Benchmarks in their published layouts: what is read, and what is refused with its remedy."""

import json
import pickle
import re
import shutil

import pytest

from llava_mole.eval import scoring
from llava_mole.eval.benchmarks import BENCHMARKS, own_set
from llava_mole.eval.prompts import prompting
from llava_mole.eval.scores import Answer
from llava_mole.eval.task import missing_images, open_task, refuse_missing_images
from tests.eval import published


def load(name, folder, **options):
    return BENCHMARKS[name].load(folder, **options)


def texts(questions):
    return [question.text for question in questions]


def test_ehub_by_ability(tmp_path):
    questions = load("ehub", published.ehub(tmp_path / "ehub").parent)
    assert [q.part for q in questions] == [p for p in BENCHMARKS["ehub"].rules for _ in range(3)]
    assert questions[0].id == "Visual_Reasoning/0"
    assert questions[0].references == ("A red car.",)
    assert questions[1].references == ("yes", "two dogs")
    assert questions[0].turns == ({"role": "user", "content": "<image>\nWhat? 0"},)
    assert questions[0].load_image().size == (30, 20)
    assert {q.dataset for q in questions} == {""}
    assert not missing_images(questions)


def test_ehub_by_dataset_names_all_42(tmp_path):
    questions = load("ehub", published.ehub_by_dataset(tmp_path))
    counts = {part: sum(q.part == part for q in questions) for part in BENCHMARKS["ehub"].rules}
    # Tiny LVLM-eHub's own counts per ability, without embodied intelligence.
    assert counts == {"VR": 11, "VP": 8, "VKA": 14, "VC": 5, "OH": 3}
    assert all(q.dataset == q.references[0] for q in questions)


def test_the_published_counts_are_the_papers():
    # Paper, Table 2 row 1: 306/550 + 196/400 + 399/700 + 286/500 + 265/300.
    assert BENCHMARKS["ehub"].published == {"VR": 550, "VP": 400, "VKA": 700, "VC": 500, "OH": 300}
    assert BENCHMARKS["pathvqa"].published == {"Open": 3370, "Closed": 3391}
    assert BENCHMARKS["docvqa"].published["test"] == 5188
    assert BENCHMARKS["chartqa"].published["test"] == 2500


def test_the_papers_row_1_is_the_sum_of_five_accuracies():
    """Its hits, as the public leaderboard has them, give the printed 307.2 through our scoring."""
    hits = {"VR": 306, "VP": 196, "VKA": 399, "VC": 286, "OH": 265}
    ehub = BENCHMARKS["ehub"]
    questions, answers = [], []
    for part, count in ehub.published.items():
        for index in range(count):
            questions.append(question(f"{part}/{index}", part, image=f"{part}{index}"))
            answers.append(Answer(questions[-1].id, "yes" if index < hits[part] else "no"))
    lines = scoring.lines(ehub, scoring.score(ehub, questions, answers))
    assert [line.name for line in lines] == ["All", "VR", "VP", "VKA", "VC", "OH"]
    assert [round(line.score.value, 1) for line in lines] == [307.2, 55.6, 49.0, 57.0, 57.2, 88.3]
    total = lines[0].score
    # Normal approximation of a sum of independent proportions.
    deviation = 100 * sum(h / n * (1 - h / n) / n for h, n in zip(
        hits.values(), ehub.published.values(), strict=True)) ** 0.5  # fmt: skip
    assert total.high - total.low == pytest.approx(2 * 1.96 * deviation, rel=0.06)


def question(id, part, reference="yes", image=None):
    from llava_mole.eval.questions import Question, asked

    return Question(id, part, "", asked("Is it?"), (reference,), image, "root", "place")


def test_chartqa_as_ureader_has_it(tmp_path):
    questions = load("chartqa", published.ureader(tmp_path / "ureader").parent)
    assert texts(questions) == ["How many?", "Is it?", "Share?", "Year?"]
    answers = ["14.5", "Yes", "50%", "2014"]
    chartqa = BENCHMARKS["chartqa"]
    scored = scoring.score(chartqa, questions, [
        Answer(q.id, a) for q, a in zip(questions, answers, strict=True)
    ])  # fmt: skip
    # UReader takes the period off the label only; a year within 5 % counts, but not strictly.
    assert [s.score for s in scored] == [1, 1, 1, 1]
    assert [s.strict for s in scored] == [1, 1, 1, 0]
    assert scoring.score(chartqa, questions[1:2], [Answer("", "Yes.")])[0].score == 0
    assert scoring.score(chartqa, questions[1:2], [Answer("", "Y\nes")])[0].score == 1


def test_chartqa_in_its_own_layout_tells_the_halves_apart(tmp_path):
    questions = load("chartqa", published.chartqa(tmp_path / "ChartQA Dataset").parent)
    assert [q.part for q in questions] == ["human"] * 3 + ["augmented"] * 2
    assert questions[3].id == "augmented-0"
    assert not missing_images(questions)
    answers = [Answer(q.id, "100" if i < 2 else "50") for i, q in enumerate(questions)]
    chartqa = BENCHMARKS["chartqa"]
    lines = scoring.lines(chartqa, scoring.score(chartqa, questions, answers))
    assert [(line.kind, line.name, line.questions) for line in lines] == [
        ("total", "ChartQA", 5), ("part", "human", 3), ("part", "augmented", 2),
    ]  # fmt: skip
    # Pooled over all questions, not the mean of the halves.
    assert lines[0].score.value == pytest.approx(40)


def test_docvqa_takes_the_one_answer_it_has(tmp_path):
    questions = load("docvqa", published.ureader(tmp_path))
    assert [q.references for q in questions] == [("ITC Limited",), ("1/8/93",), ("Paris",)]
    assert "can only be lower" in BENCHMARKS["docvqa"].remark(questions)
    assert texts(questions) == ["Whose?", "When?", "Where?"]


def test_docvqa_takes_all_accepted_answers_from_due(tmp_path):
    questions = load("docvqa", published.due(published.ureader(tmp_path)))
    assert [q.references for q in questions] == [
        ("ITC  Limited", "ITC"), ("1/8/93", "August 1"), ("Paris", "in Paris"),
    ]  # fmt: skip
    docvqa = BENCHMARKS["docvqa"]
    assert docvqa.remark(questions) == ""
    scored = scoring.score(docvqa, questions, [Answer(q.id, "itc limited") for q in questions])
    # The facts' vector: two spaces cost DUE's rule one of twelve characters.
    assert scored[0].score == pytest.approx(11 / 12)
    assert scored[0].strict == 1


def test_docvqa_pairs_a_question_that_stands_twice_in_order(tmp_path):
    root = published.due(published.ureader(tmp_path))
    file = root / "ureader_json/test_DocVQA.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines, lines[0]]))
    document = root / "benchmark_files/DUE/DocVQA/test/document.jsonl"
    rows = [json.loads(line) for line in document.read_text().splitlines()]
    again = {"key": "Whose?", "values": [{"value": "B", "value_variants": ["B"]}]}
    rows[1]["annotations"].append(again)
    published.dump_lines(document, rows)
    questions = load("docvqa", root)
    assert [q.references for q in questions[::3]] == [("ITC  Limited", "ITC"), ("B",)]


def test_docvqa_follows_donuts_list_where_due_spells_a_question_otherwise(tmp_path):
    root = published.due(published.ureader(tmp_path), spelled="Whose  is it?")
    with pytest.raises(ValueError, match=r"test_DocVQA\.jsonl:1: .*no answers to 'Whose\?'"):
        load("docvqa", root)
    questions = load("docvqa", published.donut(root, "Whose  is it?"))
    assert questions[0].references == ("ITC  Limited", "ITC")


def test_docvqa_validation_split(tmp_path):
    questions = load("docvqa", published.docvqa(tmp_path / "docvqa").parent)
    assert [q.id for q in questions] == ["300", "301"]
    assert questions[0].references == ("Coca Cola", "Coca Cola Company")
    assert not missing_images(questions)


def test_pathvqa_splits_open_and_closed(tmp_path):
    questions = load("pathvqa", published.pathvqa(tmp_path))
    assert [q.part for q in questions] == ["Open", "Closed", "Open", "Closed", "Open", "Open"]
    answers = ["canals of hering", "Yes!", "two", "It is normal", "livers", "salt and pepper"]
    pathvqa = BENCHMARKS["pathvqa"]
    scored = scoring.score(pathvqa, questions, [
        Answer(q.id, a) for q, a in zip(questions, answers, strict=True)
    ])  # fmt: skip
    assert [s.score for s in scored] == [0.75, 1, 1, 1, 0, 0.75]
    # "normal" holds "no": LLaVA-Med's quirk.
    assert scored[3].strict == 0
    names = [(line.name, line.questions) for line in scoring.lines(pathvqa, scored)]
    assert names == [("Open", 4), ("Closed", 2)]


def test_a_limit_takes_the_first_of_each_part(tmp_path):
    published.everything(tmp_path)
    assert [q.id for q in load("pathvqa", tmp_path, limit=1)] == ["test-1", "test-2"]
    assert len(load("ehub", tmp_path, limit=2)) == 10
    assert open_task("ehub", tmp_path, limit=2).label == "ehub.first2"


def test_own_sets_of_both_forms(tmp_path):
    published.image(tmp_path / "a.png", 0)
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Cat"}]
    published.dump(tmp_path / "set.json", [
        {"id": "1", "image": "a.png", "conversations": turns},
        {"id": "2", "conversations": [{"from": "human", "value": "1 + 1?"}, turns[1]]},
    ])  # fmt: skip
    questions = own_set("mine").load(tmp_path / "set.json")
    assert [(q.id, q.references, q.image) for q in questions] == [
        ("1", ("Cat",), "a.png"), ("2", ("Cat",), None),
    ]  # fmt: skip
    rows = [
        {
            "question_id": 7,
            "image": "a.png",
            "text": "Which?\nBe brief.",
            "answers": ["x"] * 9,
        },
        {"question_id": 8, "text": "<image>\nNo image?", "answer": "none", "category": "text"},
    ]
    published.dump_lines(tmp_path / "questions.jsonl", rows)
    questions = own_set("mine", "anls").load(tmp_path / "questions.jsonl")
    assert [(q.id, q.dataset) for q in questions] == [("7", ""), ("8", "text")]
    assert questions[0].turns[0]["content"] == "<image>\nWhich?\nBe brief."
    assert questions[1].turns[0]["content"] == "No image?"
    with pytest.raises(ValueError, match=r"questions\.jsonl:2: --metric vqa_accuracy compares"):
        own_set("mine", "vqa_accuracy").load(tmp_path / "questions.jsonl")
    with pytest.raises(ValueError, match="--metric 'bleu': choose one of exact_match"):
        own_set("mine", "bleu")


def test_prompt_styles(tmp_path):
    questions = load("ehub", published.ehub(tmp_path))
    authors = prompting(BENCHMARKS["ehub"], "authors")
    assert (authors.repetition_penalty, authors.max_new_tokens) == (10.0, 256)
    assert authors.apply(questions[0]).turns[-1]["content"] == (
        "<image>\nAnalyze the image and provide brief and accurate answer to the question in "
        "Engligh. What? 0"
    )
    llava = prompting(BENCHMARKS["ehub"])
    assert llava.apply(questions[0]) is questions[0]
    suffixed = prompting(BENCHMARKS["chartqa"], "authors", suffix="Be brief.")
    assert (suffixed.prefix, suffixed.repetition_penalty) == ("", 1.0)
    assert suffixed.apply(questions[0]).turns[-1]["content"] == "<image>\nWhat? 0\nBe brief."


# ---- what is refused


@pytest.mark.parametrize("name", ["ehub", "chartqa", "docvqa", "pathvqa", "general"])
def test_another_layout_says_what_is_missing(tmp_path, name):
    (tmp_path / "something.txt").write_text("x")
    with pytest.raises(ValueError, match=str(tmp_path)):
        load(name, tmp_path)


def test_a_missing_ability_is_named(tmp_path):
    shutil.rmtree(published.ehub(tmp_path) / "Object_Hallucination")
    with pytest.raises(ValueError, match=r"Object_Hallucination.dataset\.json is missing"):
        load("ehub", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_path": "0.jpg", "question": "What?"}, "'gt_answers' must be a text or a list"),
        ({"image_path": "0.jpg", "gt_answers": "a"}, "'question' is missing"),
        ({"question": "What?", "gt_answers": "a"}, "'image_path' is missing"),
        (
            {"image_path": [1], "question": "What?", "gt_answers": "a"},
            "'image_path' must be",
        ),
        ({"image_path": "0.jpg", "question": "What?", "gt_answers": []}, "'gt_answers' must be"),
        ("text", "must be a JSON object"),
    ],
)
def test_a_bad_question_names_file_and_place(tmp_path, row, message):
    file = published.ehub(tmp_path) / "Visual_Perception" / "dataset.json"
    rows = json.loads(file.read_text())
    published.dump(file, [*rows[:1], row])
    with pytest.raises(ValueError, match=re.escape(f"{file}, item 1: ") + ".*" + message):
        load("ehub", tmp_path)


def test_files_that_are_no_json_name_the_file(tmp_path):
    file = published.ehub(tmp_path) / "Visual_Perception" / "dataset.json"
    file.write_text("[{")
    with pytest.raises(ValueError, match=r"dataset\.json: not readable as JSON"):
        load("ehub", tmp_path)
    file.write_text("{}")
    with pytest.raises(ValueError, match="must be a list of questions"):
        load("ehub", tmp_path)
    # An empty ability would leave the sum of five one of four.
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"dataset\.json: has no questions"):
        load("ehub", tmp_path)
    file.write_text('[{"gt_answers": NaN}]')
    with pytest.raises(ValueError, match="NaN is no value of JSON"):
        load("ehub", tmp_path)


def test_a_hostile_pickle_is_refused(tmp_path):
    file = published.pathvqa(tmp_path) / "pvqa/qas/test/test_qa.pkl"

    class Evil:
        def __reduce__(self):
            return print, ("owned",)

    file.write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(ValueError, match="plain containers"):
        load("pathvqa", tmp_path)


def test_bad_rows_of_ureader_stop_it(tmp_path):
    file = published.ureader(tmp_path) / "ureader_json" / "test_ChartQA.jsonl"
    file.write_text(file.read_text() + '{"image": ["a.png"], "conversations": []}\n')
    with pytest.raises(ValueError, match=r"1 question\(s\) can't be read.*jsonl:5"):
        load("chartqa", tmp_path)


def test_one_id_twice_names_both_places(tmp_path):
    row = {"question_id": 7, "text": "Which?", "answer": "x"}
    published.dump_lines(tmp_path / "q.jsonl", [row, row])
    with pytest.raises(ValueError, match=r"q\.jsonl:2: id '7' stands at .*q\.jsonl:1 already"):
        own_set("mine").load(tmp_path / "q.jsonl")


def test_missing_images_are_counted_once_each_and_named(tmp_path):
    root = published.ureader(tmp_path)
    (root / "ureader_images/ChartQA/0.png").unlink()
    task = open_task("chartqa", tmp_path)
    with pytest.raises(ValueError, match=r"1 of 2 images can't be opened.*ChartQA/0\.png.*count"):
        refuse_missing_images(task)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "http://example.com/a.png"])
def test_images_outside_the_benchmark_are_never_opened(tmp_path, path):
    published.image(tmp_path / "secret.png", 0)
    file = published.ehub(tmp_path / "ehub") / "Visual_Perception" / "dataset.json"
    rows = json.loads(file.read_text())
    rows[0]["image_path"] = path
    published.dump(file, rows)
    with pytest.raises(ValueError, match="1 of 15 images"):
        refuse_missing_images(open_task("ehub", tmp_path))
