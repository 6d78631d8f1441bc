"""Small copies of the benchmarks in their published layouts, with images of one colour each."""

import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from llava_mole.eval.benchmarks.ehub import ABILITIES, DATASETS


def image(path: Path, seed: int, size=(30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def dump(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dump_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ehub(root: Path, questions: int = 3) -> Path:
    """The ability-level split."""
    for number, name in enumerate(ABILITIES.values()):
        rows = []
        for index in range(questions):
            image(root / name / f"{index}.jpg", 10 * number + index)
            truth = ["yes", "two dogs"] if index % 2 else "A red car."
            rows.append(
                {"image_path": f"{index}.jpg", "question": f"What? {index}", "gt_answers": truth}
            )
        dump(root / name / "dataset.json", rows)
    return root


def ehub_by_dataset(root: Path) -> Path:
    """The older split, a folder for each of the 42 data sets."""
    for names in DATASETS.values():
        for seed, name in enumerate(names):
            image(root / name / "0.png", seed)
            dump(
                root / name / "dataset.json",
                [{"image_path": "0.png", "question": "What?", "gt_answers": name}],
            )
    return root


def ureader(root: Path) -> Path:
    """UReader's ChartQA and DocVQA test files, four and three questions."""
    charts = [("14", "How many?"), ("Yes.", "Is it?"), ("0.5", "Share?"), ("1920", "Year?")]
    rows = []
    for index, (answer, question) in enumerate(charts):
        image(root / f"ureader_images/ChartQA/{index // 2}.png", index // 2)
        rows.append(_ureader_row(f"ChartQA/{index // 2}.png", question, answer))
    dump_lines(root / "ureader_json/test_ChartQA.jsonl", rows)
    documents = [("ab1_1", "Whose?", "ITC Limited"), ("ab1_1", "When?", "1/8/93"),
                 ("cd2_7", "Where?", "Paris")]  # fmt: skip
    rows = []
    for seed, (name, question, answer) in enumerate(documents):
        path = f"DUE_Benchmark/DocVQA/pngs/{name}.png"
        image(root / "ureader_images" / path, seed, (40, 60))
        rows.append(_ureader_row(path, question, answer))
    dump_lines(root / "ureader_json/test_DocVQA.jsonl", rows)
    return root


def _ureader_row(path: str, question: str, answer: str) -> dict:
    turns = [("user", "<image>"), ("user", question), ("assistant", answer)]
    return {
        "image": [path],
        "prompt": "",
        "text": "",
        "system_instruction": "",
        "conversations": [{"from": role, "value": value} for role, value in turns],
        "task_type": "qa_sft",
    }


def due(root: Path, spelled: str = "Whose?") -> Path:
    """DUE's accepted answers beside `ureader`; documents in another order than the questions."""

    def annotation(question, *accepted):
        return {"key": question, "values": [{"value": accepted[0], "value_variants": accepted}]}

    dump_lines(
        root / "benchmark_files/DUE/DocVQA/test/document.jsonl",
        [
            {"name": "cd2_7", "annotations": [annotation("Where?", "Paris", "in Paris")]},
            {
                "name": "ab1_1",
                "annotations": [
                    annotation("When?", "1/8/93", "August 1"),
                    annotation(spelled, "ITC  Limited", "ITC"),
                ],
            },
        ],
    )
    return root


def donut(root: Path, spelled: str) -> Path:
    """Donut's list, which has the questions as DUE spells them."""
    rows = []
    for name, question in [("ab1_1", spelled), ("ab1_1", "When?"), ("cd2_7", "Where?")]:
        truth = json.dumps({"gt_parses": [{"question": question, "answer": "?"}]})
        rows.append({"file_name": f"test/{name}.pdf.png", "ground_truth": truth})
    dump_lines(root / "benchmark_files/DONUT/DocVQA/test/metadata.jsonl", rows)
    return root


def chartqa(root: Path) -> Path:
    """ChartQA's own layout: three human and two augmented questions."""
    for half, count in (("human", 3), ("augmented", 2)):
        rows = []
        for index in range(count):
            image(root / f"test/png/{half}{index}.png", index)
            rows.append({"imgname": f"{half}{index}.png", "query": f"Q{index}?", "label": "100"})
        dump(root / f"test/test_{half}.json", rows)
    return root


def docvqa(root: Path) -> Path:
    """DocVQA's own validation split, two questions."""
    rows = []
    for index in range(2):
        image(root / f"documents/d{index}_1.png", index)
        rows.append(
            {
                "questionId": 300 + index,
                "question": "Who?",
                "image": f"documents/d{index}_1.png",
                "docId": index,
                "answers": ["Coca Cola", "Coca Cola Company"],
                "data_split": "val",
            }
        )
    dump(root / "val_v1.0_withQT.json", {"dataset_name": "DocVQA", "data": rows})
    return root


def pathvqa(root: Path) -> Path:
    """The authors' pickles: six questions about two images, two of them yes/no."""
    answers = ["in the canals of hering", "yes", "2", "no", "liver", "a salt-and-pepper pattern"]
    rows = []
    for index, answer in enumerate(answers):
        name = f"test_{index % 2:04d}"
        image(root / f"pvqa/images/test/{name}.jpg", index % 2)
        rows.append({"image": name, "question": f"where are stem cells {index}?", "answer": answer})
    file = root / "pvqa/qas/test/test_qa.pkl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(rows))
    return root


def everything(root: Path) -> Path:
    """All four below one folder, as ``--data`` takes it."""
    ehub(root / "ehub")
    due(ureader(root / "ureader"))
    pathvqa(root / "pathvqa")
    return root
