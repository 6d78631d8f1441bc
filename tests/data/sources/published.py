"""Tiny copies of the published trees of M3IT, UReader and PathVQA, with their quirks.

Each function lays one out below a folder and returns that folder, as `data prepare --source` takes
it. Layouts are the published ones, file names and row forms included; see the modules in
`llava_mole.data.sources` for where they were read.
"""

import base64
import io
import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from PIL import Image


def picture(width: int, height: int, colour=(200, 90, 40), format: str = "JPEG", mode="RGB"):
    """The bytes of an image file."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), colour).convert(mode).save(stream, format)
    return stream.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def m3it_dataset(
    root: Path, place: str, files: dict[str, list[dict]], instructions: list[str] | None = None
) -> Path:
    """One data set ``GROUP/DATASET`` of M3IT below ``root/data``."""
    folder = root / "data" / place
    for name, rows in files.items():
        write_rows(folder / name, rows)
    if instructions is not None:
        (folder / "instructions.json").write_text(json.dumps(instructions), encoding="utf-8")
    return folder


def m3it(root: Path) -> Path:
    """M3IT: 19 training rows of 12 data sets, 23 samples; every form of row that is known."""
    jpeg, png = b64(picture(12, 8)), b64(picture(9, 9, (0, 0, 255), "PNG"))
    m3it_dataset(
        root,
        "captioning/coco",
        {
            "train.jsonl": [
                {"image": jpeg, "meta": {"targets": [f"caption {k}" for k in range(5)]}},
            ],
            "val.jsonl": [{"image": jpeg, "meta": {"targets": ["of the validation split"]}}],
        },
        [f"Describe the image ({k})." for k in range(12)],
    )
    m3it_dataset(
        root,
        "captioning/coco-cn",
        {"train.jsonl": [{"image_base64_str": png, "inputs": "", "outputs": "一只猫坐在椅子上。"}]},
        ["用一句话描述这张图片。"],
    )
    m3it_dataset(
        root,
        "captioning/msrvtt",
        {
            "train.jsonl": [
                {
                    "video_str": [b64(picture(8, 6, (k * 30, 0, 0))) for k in range(4)],
                    "caption": "A ball rolls.",
                    "meta": {"video_id": "v1"},
                }
            ]
        },
        ["Describe the video."],
    )
    m3it_dataset(
        root,
        "classification/mocheg",
        {"mocheg_train.jsonl": [{"input": "Claim: x", "image_str": png, "output": "Refuted."}]},
        ["Is the claim supported?"],
    )
    imagenet = m3it_dataset(
        root,
        "classification/imagenet",
        {"train.jsonl": [{"img_str": jpeg, "label": 2}, {"img_str": png, "label": 11}]},
        ["Choose the class of the image."],
    )
    names = "".join(f"n{k:08d} class{k}, kind of {k}\n" for k in range(14))
    (imagenet / "mapping.txt").write_text(names, encoding="utf-8")
    m3it_dataset(
        root,
        "classification/snli-ve",
        {
            "esnlive_train.jsonl": [
                {
                    "image_base64_str": jpeg,
                    "hypothesis": "A man sleeps.",
                    "label": "neutral",
                    "rationale": "His eyes can't be seen.",
                }
            ]
        },
        ["Does the image say that [HYPO]? Answer yes, no or maybe."],
    )
    m3it_dataset(
        root,
        "reasoning/nlvr",
        {
            "train.jsonl": [
                {
                    "instruction": "Is the statement true of both images?",
                    "inputs": "The left one is red.",
                    "image_base64_str": [jpeg, png],
                    "outputs": "Yes",
                }
            ]
        },
        ["Not used: the row has its own."],
    )
    m3it_dataset(
        root,
        "vqa/a-okvqa",
        {
            "train.jsonl": [
                {
                    "question": "What is the man awaiting?",
                    "image_str": jpeg,
                    "rationale": "He stands by the street.",
                    "answer": "cab",
                }
            ]
        },
        ["Answer and explain."],
    )
    okvqa = {"question": "Which sport?", "image_str": png, "answer": "tennis"}
    m3it_dataset(
        root,
        "vqa/okvqa",
        {
            "train.jsonl": [okvqa],
            "train_v2.jsonl": [okvqa | {"paraphrased_answer": "They play tennis."}],
        },
        ["Use what you know."],
    )
    m3it_dataset(
        root,
        "vqa/shapes",
        {
            "train.large.jsonl": [{"question": "is red a circle", "image_str": png, "answer": a}
                                  for a in ("true", "false")],
            "train.small.jsonl": [{"question": "x", "image_str": png, "answer": "true"}],
        },
        ["Look at the shapes."],
    )  # fmt: skip
    m3it_dataset(
        root,
        "generation/vist",
        {
            "train.jsonl": [
                {
                    "images": [b64(picture(6 + k, 6)) for k in range(5)],
                    "sentences": ["One.", "Two.", "Three.", "Four.", "Five."],
                }
            ]
        },
        ["Tell a story."],
    )
    dialog = {"inputs": "Q: who?", "image_str": jpeg, "outputs": "nobody"}
    rephrased = {
        "meta": {"instruction": "Talk.", "inputs": "Q: who?", "image_base64_str": [jpeg]},
        "answer": "There is nobody to be seen.",
    }
    m3it_dataset(
        root,
        "generation/visual_dialog",
        {
            "train.jsonl": [dialog | {"inputs": f"Q: {k}?"} for k in range(6)],
            "train_2023-10-09.jsonl": [rephrased],
        },
        ["Go on with the dialog.", "Answer in the dialog."],
    )
    # On the hub, but not in the card's counts; and a test split alone.
    m3it_dataset(root, "classification/vsr", {"train.jsonl": [dialog]}, ["Is it on the left?"])
    m3it_dataset(root, "classification/winoground", {"winoground_test.jsonl": [dialog]}, ["Which?"])
    return root


def ureader(root: Path) -> Path:
    """UReader: 7 training rows of 5 data sets, 1 of validation, a test file; 5 image files."""
    images = root / "ureader_images"
    docvqa = images / "DUE_Benchmark/DocVQA/pngs/rnbx0223_193.png"
    chart = images / "ChartQA/train/png/41699051005347.png"
    tall = images / "DUE_Benchmark/InfographicsVQA/pngs/20471.png"
    scan = images / "DUE_Benchmark/DeepForm/tiffs/form.tiff"
    web = images / "VisualMRC/images/web.jpg"
    for path in (docvqa, chart, tall, scan, web):
        path.parent.mkdir(parents=True, exist_ok=True)
    docvqa.write_bytes(picture(30, 40, format="PNG"))
    chart.write_bytes(picture(40, 30, format="PNG"))
    # Pages of over 16,000 pixels occur.
    Image.new("L", (200, 16100), 255).save(tall)
    pages = [Image.new("L", (20, 30), 60 * k) for k in range(3)]
    pages[0].save(scan, save_all=True, append_images=pages[1:])
    web.write_bytes(picture(20, 20))

    def row(image, question: str, answer: str, **fields) -> dict:
        return {
            "image": image,
            "prompt": "",
            "text": "",
            "system_instruction": "",
            "conversations": [
                {"from": "user", "value": "<image>"},
                {"from": "user", "value": question},
                {"from": "assistant", "value": answer},
            ],
            "task_type": "qa_sft",
        } | fields

    nigeria = row(
        ["DUE_Benchmark/DocVQA/pngs/rnbx0223_193.png"], "Which country has the most?", "Nigeria"
    )
    write_rows(
        root / "ureader_json/train.jsonl",
        [
            nigeria,
            row("ChartQA/train/png/41699051005347.png", "How many?", "14"),
            row(["DUE_Benchmark/DeepForm/tiffs/form.tiff.2"], "What is the gross amount?", "None"),
            row(["DUE_Benchmark/InfographicsVQA/pngs/20471.png"], "What is at the foot?", "7 %"),
            row([b64(picture(16, 16, format="PNG"))], "Read it.", "as base64"),
            row(["VisualMRC/images/web.jpg"], "Sum up.", "A page.", system_instruction="Be brief."),
            row(["DUE_Benchmark/DocVQA/pngs/rnbx0223_193.png"], "Which country has the most?", ""),
        ],
    )  # fmt: skip
    write_rows(root / "ureader_json/val.jsonl", [nigeria])
    write_rows(root / "ureader_json/test_DocVQA.jsonl", [nigeria])
    return root


PATHVQA_QUESTIONS = [
    ("train_0422", "Where are liver stem cells (oval cells) located?", "in the canals of hering"),
    ("train_0422", "Is  this\u2003normal? ", "No"),
    ("train_0001", "Does this show a tumour?", "yes"),
    ("train_0001", "What is seen?", "no necrosis"),
    ("train_0001", "What is seen?", "Endocrine"),
    ("train_0001", "How many cells?", "2"),
]


def pathvqa_raw(root: Path, listed: str = "qa") -> Path:
    """The authors' PathVQA: 6 questions about 2 images, one of them CMYK; ``qa`` or ``vqa``."""
    raw = root / "pvqa"
    (raw / "images/train").mkdir(parents=True)
    (raw / "images/train/train_0422.jpg").write_bytes(picture(30, 20))
    (raw / "images/train/train_0001.jpg").write_bytes(picture(20, 30, mode="CMYK"))
    if listed == "qa":
        file = raw / "qas/train/train_qa.pkl"
        questions = [
            {"image": image, "question": question, "answer": answer}
            for image, question, answer in PATHVQA_QUESTIONS
        ]
    else:
        file = raw / "qas/train_vqa.pkl"
        kinds = {"No": "yes/no", "yes": "yes/no", "2": "number"}
        questions = [
            {
                "answer_type": kinds.get(answer, "other"),
                "img_id": image,
                "label": {answer: 1},
                "question_id": 100422000 + index,
                "question_type": question.split()[0].lower(),
                "sent": question,
            }
            for index, (image, question, answer) in enumerate(PATHVQA_QUESTIONS)
        ]
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(questions, protocol=4))
    return root


def pathvqa_hub(root: Path, rows_of_group: int = 2) -> Path:
    """The hub's PathVQA: the same questions in lower case, in two parquet files."""
    root.joinpath("data").mkdir(parents=True)
    rows = [
        {
            "image": {"bytes": picture(30, 20, (index * 20, 0, 0)), "path": None},
            "question": " ".join(question.lower().split()),
            "answer": answer.lower(),
        }
        for index, (_, question, answer) in enumerate(PATHVQA_QUESTIONS)
    ]
    for index, part in enumerate((rows[:4], rows[4:])):
        pyarrow.parquet.write_table(
            pa.Table.from_pylist(part),
            root / f"data/train-0000{index}-of-00002.parquet",
            row_group_size=rows_of_group,
        )
    return root
