"""Tiny LVLM-eHub (arXiv 2308.03729): five abilities, scored by word match, summed.

The ability-level split that the paper reports has 2,450 questions in five folders, each with
images and ``dataset.json``: ``[{"image_path": "x.jpg", "question": ..., "gt_answers": text or
list}]``. It does not say which data set a question is from. The older data-set-level split has one
such folder for each of 42 data sets; it is read too, and then every data set has a line of its own.

An ability's score is its accuracy over all its questions, in per cent; All is the sum of the five
(LLaVA-MoLE, Table 2).
"""

from pathlib import Path

from llava_mole.eval.benchmarks.benchmark import (
    Benchmark,
    Rule,
    first_folder,
    read_json,
    rows,
    text_field,
    text_list,
)
from llava_mole.eval.metrics import word_match
from llava_mole.eval.questions import Question, asked

ABILITIES = {
    "VR": "Visual_Reasoning",
    "VP": "Visual_Perception",
    "VKA": "Visual_Knowledge_Acquisition",
    "VC": "Visual_Commonsense",
    "OH": "Object_Hallucination",
}
# fmt: off
DATASETS = {
    "VR": ("DocVQA", "TextVQA", "STVQA", "OCRVQA", "OKVQA", "GQA", "IconQA", "VSR", "WHOOPS",
           "ScienceQA", "VizWiz"),
    "VP": ("ImageNet", "CIFAR10", "OxfordIIITPet", "Flowers102", "VCR1_OC", "VCR1_MCI",
           "MSCOCO_OC", "MSCOCO_MCI"),
    "VKA": ("IIIT5K", "IC13", "IC15", "Total-Text", "CUTE80", "SVT", "SVTP", "COCO-Text",
            "WordArt", "CTW", "HOST", "WOST", "SROIE", "FUNSD"),
    "VC": ("ImageNetVC_color", "ImageNetVC_shape", "ImageNetVC_material", "ImageNetVC_component",
           "ImageNetVC_others"),
    "OH": ("MSCOCO_pope_random", "MSCOCO_pope_popular", "MSCOCO_pope_adversarial"),
}
# fmt: on


def _read(folder: Path) -> list[Question]:
    places = ("ehub", "updated_datasets", "tiny_lvlm_datasets", "")
    for place in places:
        # Told by one folder of the data-set-level split that no other layout has.
        if (folder / place / "IIIT5K" / "dataset.json").is_file():
            return [
                question
                for part, names in DATASETS.items()
                for name in names
                for question in _folder(folder / place, name, part, name)
            ]
    needs = f"{ABILITIES['VR']}/dataset.json"
    root = first_folder("ehub", folder, places, needs)
    return [
        question for part, name in ABILITIES.items() for question in _folder(root, name, part, "")
    ]


def _folder(root: Path, name: str, part: str, dataset: str) -> list[Question]:
    file = root / name / "dataset.json"
    if not file.is_file():
        raise ValueError(f"ehub: {file} is missing; all of the benchmark's folders are needed")
    return [
        Question(
            id=f"{name}/{index}",
            part=part,
            dataset=dataset,
            turns=asked(text_field(row, ("question",), place)),
            references=text_list(row, "gt_answers", place),
            image=text_field(row, ("image_path",), place),
            image_root=str(root / name),
            place=place,
        )
        for index, place, row in rows(file, read_json(file))
    ]


_RULE = Rule(
    "word match (VQAEval of Tiny LVLM-eHub)",
    lambda prediction, references: float(word_match(prediction, references)),
    lambda prediction, references: float(word_match(prediction, references, rule="strict")),
)

EHUB = Benchmark(
    name="ehub",
    title="Tiny LVLM-eHub",
    read=_read,
    rules=dict.fromkeys(ABILITIES, _RULE),
    total="All",
    total_is="sum",
    published={"VR": 550, "VP": 400, "VKA": 700, "VC": 500, "OH": 300},
    max_new_tokens=256,
    authors_prefix=(
        "Analyze the image and provide brief and accurate answer to the question in Engligh. "
    ),
)
