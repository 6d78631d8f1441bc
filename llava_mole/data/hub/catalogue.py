"""What the paper's training sets are: where they come from, under which licence, how large.

Read in the hub's listings and cards and in the projects' own pages. The hub says it anew when a set
is downloaded; what stands here is shown where it can't be asked, and tells what has to be fetched
by hand. Sizes are those of the listings, rounded as there; a size that is None was not to be seen.
"""

from dataclasses import dataclass

SAM_NOTE = "only the archives sa_000000.tar to sa_000050.tar; after accepting Meta's licence"


@dataclass(frozen=True)
class ByHand:
    """Something that no command fetches.

    Attributes:
        what: its name.
        address: the official one.
        folder: where it belongs, below the data folder.
        note: what else to know; may be empty.
    """

    what: str
    address: str
    folder: str
    note: str = ""


@dataclass(frozen=True)
class Archive:
    """A file of the set that is unpacked after the download.

    Attributes:
        file: its path in the set.
        holds: the folder, below the set's, that its content is; archives name more or fewer of
            the folders above it.
    """

    file: str
    holds: str


@dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        title: what it is.
        hub_id: data set on the Hugging Face hub.
        folder: where it goes, below the data folder.
        licence: as stated by the set's page, and what that leaves out.
        records: how many, of which split.
        about_bytes: what is downloaded, about; None if not known.
        size_note: what the size rests on.
        files: patterns of the files to take.
        leave: patterns of files to leave.
        archives: what is unpacked.
        by_hand: what has to be fetched besides.
        prepare: the command that comes next, with {data} for the data folder.
    """

    title: str
    hub_id: str
    folder: str
    licence: str
    records: str
    about_bytes: int | None
    size_note: str
    files: tuple[str, ...]
    prepare: str
    leave: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    by_hand: tuple[ByHand, ...] = ()

    @property
    def page(self) -> str:
        """The set's page on the hub."""
        return f"https://huggingface.co/datasets/{self.hub_id}"


_LCS = ByHand(
    "LAION-CC-SBU images (558K)",
    "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain/blob/main/images.zip",
    "llava/llava_pretrain/images",
)
_COCO = ByHand(
    "COCO train2017", "http://images.cocodataset.org/zips/train2017.zip", "coco/train2017"
)
_SAM = ByHand(
    "SAM (Segment Anything) images",
    "https://ai.meta.com/datasets/segment-anything-downloads/",
    "sam/images",
    SAM_NOTE,
)
_INSTRUCT_IMAGES = (
    _COCO,
    _LCS,
    _SAM,
    ByHand("GQA", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", "gqa/images"),
    ByHand(
        "OCR-VQA",
        "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_",
        "ocr_vqa/images",
        "a download script; save all as .jpg. Some GIFs then are named .jpg, and some books' "
        "covers can't be had any more: train with on_bad_record: skip",
    ),
    ByHand(
        "TextVQA",
        "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip",
        "textvqa/train_images",
    ),
    ByHand(
        "Visual Genome, part 1",
        "https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip",
        "vg/VG_100K",
    ),
    ByHand(
        "Visual Genome, part 2",
        "https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip",
        "vg/VG_100K_2",
    ),
    ByHand(
        "web images: share_textvqa, web-celebrity, web-landmark, wikiart",
        "https://drive.google.com/drive/folders/1tCUQ-sq6vdshZVkF0ZeF3K4eztkXJgax",
        "{share_textvqa,web-celebrity,web-landmark,wikiart}/images",
        "for academic use only",
    ),
)
_UREADER_IMAGES = {
    "ChartQA": "ChartQA",
    "DeepForm": "DUE_Benchmark/DeepForm",
    "DocVQA": "DUE_Benchmark/DocVQA",
    "InfographicsVQA": "DUE_Benchmark/InfographicsVQA",
    "KleisterCharity": "DUE_Benchmark/KleisterCharity",
    "TabFact": "DUE_Benchmark/TabFact",
    "TextCaps": "TextCaps",
    "TextVQA": "TextVQA",
    "VisualMRC": "VisualMRC",
    "WikiTableQuestions": "DUE_Benchmark/WikiTableQuestions",
}

CATALOGUE: dict[str, Entry] = {
    "sharegpt4v-pretrain": Entry(
        title="ShareGPT4V-PT: captions for stage 1",
        hub_id="Lin-Chen/ShareGPT4V",
        folder="sharegpt4v",
        licence="CC-BY-NC-4.0; the images have their own",
        records="about 1,246,000",
        about_bytes=1_490_000_000,
        size_note="the captions, without images",
        files=("share-captioner_coco_lcs_sam_1246k_1107.json",),
        by_hand=(_COCO, _LCS, _SAM),
        prepare="llava-mole data prepare sharegpt4v-pretrain --source {data}/sharegpt4v "
        "--output {data}/prepared/sharegpt4v-pretrain",
    ),
    "sharegpt4v-instruct": Entry(
        title="ShareGPT4V-Instruct: LLaVA's 665K mixture with better captions",
        hub_id="Lin-Chen/ShareGPT4V",
        folder="sharegpt4v",
        licence="CC-BY-NC-4.0; the images have their own",
        records="about 665,000, some 40,000 of them text alone",
        about_bytes=1_230_000_000,
        size_note="the conversations, without images",
        files=("sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json",),
        by_hand=_INSTRUCT_IMAGES,
        prepare="llava-mole data prepare sharegpt4v-instruct --source {data}/sharegpt4v "
        "--output {data}/prepared/sharegpt4v-instruct",
    ),
    "m3it": Entry(
        title="M3IT: 40 data sets with instructions",
        hub_id="MMInstruction/M3IT",
        folder="m3it",
        licence="other: each of its data sets has its own, named in the card",
        records="1,592,320 in the training split, by the card",
        about_bytes=50_000_000_000,
        size_note="at least: the sum of the 17 training files whose sizes were seen",
        # The training split as `M3ITSource` reads it, without the dated rephrasings, which are
        # several times as large.
        files=(
            "data/*/*/*train*.jsonl",
            "data/*/*/instruction*.json",
            "data/*/*/mapping.txt",
            "data/*/*/labels.json",
        ),
        leave=("*[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*",),
        prepare="llava-mole data prepare m3it --source {data}/m3it --output {data}/prepared/m3it",
    ),
    "ureader": Entry(
        title="UReader: documents, charts, tables and web pages",
        hub_id="Mizukiluke/ureader-instruction-1.0",
        folder="ureader",
        licence="none stated; each of its data sets has its own",
        records="654,840 (train and val)",
        about_bytes=None,
        size_note="the text is 43 MB packed; ten archives of images",
        files=("ureader_json.zip", *(f"{name}.tar" for name in _UREADER_IMAGES)),
        archives=(
            Archive("ureader_json.zip", "ureader_json"),
            *(
                Archive(f"{name}.tar", f"ureader_images/{place}")
                for name, place in _UREADER_IMAGES.items()
            ),
        ),
        prepare="llava-mole data prepare ureader --source {data}/ureader --split train+val "
        "--exclude TextCaps --output {data}/prepared/ureader",
    ),
    "pathvqa": Entry(
        title="PathVQA: questions about pathology images",
        hub_id="flaviagiammarino/path-vqa",
        folder="pathvqa",
        licence="MIT, by the card; the images' copyrights stay with two textbooks and PEIR",
        records="19,654 of train, 6,259 of val, 6,719 of test",
        about_bytes=785_414_952,
        size_note="by the card",
        files=("data/*.parquet",),
        by_hand=(
            ByHand(
                "the authors' own copy, in place of the hub's",
                "https://github.com/UCSD-AI4H/PathVQA",
                "pathvqa/pvqa",
                "not needed for training; its 19,755, 6,279 and 6,761 questions are what published "
                "scores are of, where the hub's copy has no duplicates and lower case only",
            ),
        ),
        prepare="llava-mole data prepare pathvqa --source {data}/pathvqa "
        "--output {data}/prepared/pathvqa",
    ),
}


def entry(name: str) -> Entry:
    """The data set ``name``.

    Raises:
        ValueError: there is none; names those there are.
    """
    if name not in CATALOGUE:
        raise ValueError(f"no data set {name!r}; choose one of {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]


def bytes_text(count: int | None) -> str:
    """A number of bytes for people: ``1.49 GB``."""
    if count is None:
        return "not known"
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
