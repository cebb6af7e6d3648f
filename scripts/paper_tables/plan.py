"""The paper's thirteen tables: what each shows, and the runs of the task scripts that it needs."""

from pathlib import Path
from typing import Any, NamedTuple

from crl.run.files import read_yaml, slug
from paper_tables.runs import CONFIGS, Run, Settings, Texts, make, texts
from similarity_retrieval.datasets import WEIGHTS

VLMS = ["clip", "align", "metaclip", "blip2"]
TOWER = ["clip-b16"]  # of GeneCIS and of fashion retrieval
CRITERIA = {"clevr4": ["texture", "shape", "color", "count"], "cards": ["number", "suits"]}
ATTRIBUTES = ["texture", "fabric", "shape", "part", "style"]
DEMO_IMAGES, QUICK_IMAGES = 3000, 600  # as scripts/demo.sh draws
NUMBERS = [10, 20, 50, 100, 200, 300, 400, 500]  # of texts
BEYOND: dict[str, Any] = {
    "representation": ["paper", "posterior"]
}  # the second is beyond the paper
# Rows of ablations: the end of the names of their lists. Those of Tables 1 and 2 have none.
LLMS = {"GPT-4o": "", "Deepseek-v3": "deepseek", "Gemini 2.5": "gemini", "Claude 4": "claude"}
TEMPERATURES = {"0": "temperature0", "0.5": "temperature0.5", "1": "", "1.5": "temperature1.5"}
LLM_PROMPTS = {"1": "", **{row: f"llm_prompt{row}" for row in "2345"}}
VLM_PROMPTS: dict[str, dict[str, str]] = {
    "1": {},  # that of each basis
    "2": {"vlm_prompt": "a photo with the {criterion} of {text}"},
    "3": {"vlm_prompt": "itap with the {criterion} of {text}"},
    "4": {"vlm_prompt": "art with the {criterion} of {text}"},
    "5": {"vlm_prompt": "a cartoon with the {criterion} of {text}"},
}


class PaperTable(NamedTuple):
    """A table of the paper.

    Attributes:
        paper: its name in configs/paper_tables.json.
        runs: the runs of each row of an ablation; in other tables all stand under "".
        quoted: methods that this repository does not have; trained: those with a training.
        varied: what an ablation varies; method: the row of Tables 1 to 4 that it is about.
    """

    title: str
    paper: str
    runs: dict[str, list[Run]]
    quoted: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    varied: str = ""
    method: str = "CLIP+CRL"

    @property
    def in_order(self) -> list[tuple[str, Run]]:
        """Each run with its row, after those that it needs."""
        pairs = [(row, run) for row, runs in self.runs.items() for run in runs]
        return list(dict.fromkeys((row, one) for row, run in pairs for one in [*run.before, run]))


def paper_tables(s: Settings) -> dict[int, PaperTable]:
    """The tables by their numbers."""
    both_balances: dict[str, Any] = {**BEYOND, "balance": ["paper", "standard"]}
    by_number: dict[str, Any] = {"varied": "number of texts"}
    vlms = s.vlms(TOWER)
    return {
        1: PaperTable(
            "Few-shot classification, accuracy in percent, with 1, 5 and 10 images per class",
            "table1_few_shot_accuracy",
            {"": labelled(s, "few_shot", VLMS, **BEYOND)},
        ),
        2: PaperTable(
            "Clustering, NMI, ACC and ARI in percent",
            "table2_clustering",
            {"": labelled(s, "clustering", VLMS, **BEYOND)},
            quoted=("CC", "SCAN", "Multi-Map"),
        ),
        3: PaperTable(
            "Similarity retrieval (GeneCIS), Recall@1, 2 and 3 in percent",
            "table3_similarity_recall",
            {"": genecis(s, **both_balances) + genecis(s, trained=True, **both_balances)},
            quoted=("Pic2Word", "SEARLE", "LinCIR", "CIG"),
        ),
        4: PaperTable(
            "Fashion retrieval (DeepFashion), mAP in percent",
            "table4_fashion_map",
            {
                "": [
                    fashion(s, vlm, training, **BEYOND)
                    for vlm in vlms
                    for training in (None, heads(s, vlm), backbone(s, vlm), *rivals(s))
                ]
            },
            quoted=("ASEN++", "RPF"),
            trained=("Triplet", "CSN", "ASEN", "CLIP+CRL"),
        ),
        5: PaperTable(
            "Few-shot classification by number of texts",
            "table5_few_shot_by_number_of_texts",
            {str(n): labelled(s, "few_shot", number=n, lists="long") for n in NUMBERS},
            **by_number,
        ),
        6: PaperTable(
            "Clustering by number of texts",
            "table6_clustering_by_number_of_texts",
            {str(n): labelled(s, "clustering", number=n, lists="long") for n in NUMBERS},
            **by_number,
        ),
        7: PaperTable(
            "Similarity retrieval by number of texts, after GeneCIS's training",
            "table7_similarity_by_number_of_texts",
            {str(n): genecis(s, trained=True, number=n) for n in NUMBERS},
            **by_number,
            method="CLIP+CRL*",  # the paper's numbers are near those of this row of Table 3
        ),
        8: PaperTable("The text bases of these tables (the paper's holds no scores)", "", {}),
        9: PaperTable(
            "Fashion retrieval by number of texts, both stages trained",
            "table9_fashion_by_number_of_texts",
            {
                str(n): [fashion(s, vlm, backbone(s, vlm, n), n) for vlm in vlms]
                for n in ([10, 50, 200, 500] if s.demo else NUMBERS)  # two trainings each
            },
            **by_number,
            trained=("CLIP+CRL",),
        ),
        10: by_lists(s, "LLM", "table10_llm", LLMS),
        11: by_lists(s, "temperature of the LLM", "table11_temperature", TEMPERATURES),
        12: by_lists(s, "LLM prompt", "table12_llm_prompt", LLM_PROMPTS),
        13: PaperTable(
            "Clustering and few-shot classification by VLM prompt",
            "table13_vlm_prompt",
            {row: both(s, **prompt) for row, prompt in VLM_PROMPTS.items()},
            varied="VLM prompt",
        ),
    }


def by_lists(s: Settings, varied: str, paper: str, lists: dict[str, str]) -> PaperTable:
    """A table about other lists of the authors; `lists`: row: the end of their names."""
    rows = {row: both(s, lists=end, only_authors=True) for row, end in lists.items()}
    title = f"Clustering and few-shot classification by {varied}, mean of all settings"
    return PaperTable(title, paper, rows, varied=varied)


def both(s: Settings, **keys: Any) -> list[Run]:
    return [*labelled(s, "clustering", **keys), *labelled(s, "few_shot", **keys)]


# --- runs -----------------------------------------------------------------------------------------


def labelled(
    s: Settings,
    task: str,
    vlms: list[str] | None = None,
    number: int | None = None,
    lists: str = "",
    only_authors: bool = False,
    **keys: Any,
) -> list[Run]:
    """clustering.py or few_shot.py on Clevr4 and on Cards.

    Args:
        vlms: a run for each; None: an ablation with CLIP.
        number, lists, only_authors: see `texts`.
    """
    keys |= {"root": s.data, "ablation": not vlms}
    if s.demo:
        keys["images"] = QUICK_IMAGES if s.quick else DEMO_IMAGES
    if s.demo and not vlms:
        keys |= {"seeds": 5, "representation": "paper"}
    runs = []
    for data, criteria in CRITERIA.items():
        ours = {criterion: f"{data}_{criterion}" for criterion in criteria}
        bases = texts(s, ours, number, lists, only_authors)
        long = {"criteria": list(bases.bases)} if bases.bases and bases.partly else {}
        for vlm in s.vlms(vlms or ["clip"]):
            runs.append(make(s, task, config(s, data, data), bases, vlm, **(keys | long)))
    return runs


def genecis(
    s: Settings, trained: bool = False, number: int | None = None, **keys: Any
) -> list[Run]:
    """evaluate.py on GeneCIS's object tasks: the paper's CLIP; or `trained`, with the weights that
    GeneCIS published (* in the paper). In the demo a Combiner is trained before."""
    root = s.data / "genecis"
    keys |= {"root": root, "ablation": bool(number)}
    if s.demo:
        keys["before"] = demo_combiner(s)
        keys["trained"] = [keys["before"][-1].folder]
    elif trained:
        keys |= {"trained": [root], "needs": [root / name for name in WEIGHTS]}
    if s.demo and number:
        keys |= {"representation": "paper", "balance": "paper"}
    ours = {"focus_object": "genecis_scene", "change_object": "genecis_scene"}
    bases, file = texts(s, ours, number, "long" if number else ""), config(s, "genecis", "scenes")
    return [make(s, "similarity_retrieval", file, bases, v, **keys) for v in s.vlms(TOWER)]


def demo_combiner(s: Settings) -> list[Run]:
    """Triplets from drawn captions, and a Combiner from the triplets."""
    coco = s.data / "genecis" / "coco"
    graphs = coco / "annotations" / "relations_train2017.jsonl"
    mine = make(s, "triplets", "demo/mine.yaml", graphs=graphs, needs=[graphs])
    keys: dict[str, Any] = {"triplets": mine.folder / "triplets.jsonl", "images": coco}
    keys["needs"] = [coco / "train2017"]
    return [mine, make(s, "combiner", "demo/combiner.yaml", **keys)]


def fashion(
    s: Settings, vlm: str, training: Run | None, number: int | None = None, **keys: Any
) -> Run:
    """evaluate.py on DeepFashion, of CRL without training, or also of a training."""
    if s.demo and number:
        keys["representation"] = "paper"
    if training:
        keys |= {"trained": [training.folder], "before": [*training.before, training]}
    keys |= {"root": clothes(s), "ablation": bool(number)}
    file = config(s, "deepfashion", "garments")
    return make(s, "fashion_retrieval", file, clothes_texts(s, number), vlm, **keys)


def heads(s: Settings, vlm: str, number: int | None = None) -> Run:
    """CRL's training, stage 1. With other texts or VLMs it has another name."""
    bases, file = clothes_texts(s, number), config(s, "deepfashion_mlp", "garments_mlp")
    parts = [read_yaml(CONFIGS / file)["name"], "official" if "bases" in bases.keys else ""]
    parts += [slug(vlm) if vlm not in ("", *TOWER) else "", f"texts{number}" if number else ""]
    name = "-".join(filter(None, parts))
    return make(s, "fashion_mlp", file, bases, vlm, root=clothes(s), name=name)


def backbone(s: Settings, vlm: str, number: int | None = None) -> Run:
    """Stage 2, which takes VLM and texts from stage 1."""
    first = heads(s, vlm, number)
    file = config(s, "deepfashion_backbone", "garments_backbone")
    keys = {"root": clothes(s), "heads": first.folder, "name": first.config.name}
    return make(s, "fashion_backbone", file, before=[first], **keys)


def rivals(s: Settings) -> list[Run]:
    """Trainings of other methods."""
    if s.demo:
        return [make(s, "fashion_rivals", "demo/garments_csn.yaml", root=clothes(s))]
    return [
        make(s, "fashion_rivals", "deepfashion_rival.yaml", root=clothes(s), method=name, name=name)
        for name in ("triplet", "csn", "asen")
    ]


def clothes(s: Settings) -> Path:
    return s.data / ("garments" if s.demo else "deepfashion")


def clothes_texts(s: Settings, number: int | None) -> Texts:
    # The authors' repository has no long lists for DeepFashion: so those of Table 9 are ours.
    ours = {attribute: f"deepfashion_{attribute}" for attribute in ATTRIBUTES}
    return texts(s, ours, number, "long" if number else "")


def config(s: Settings, name: str, in_demo: str) -> str:
    """A file in configs/: of the paper's data, or of the demo's."""
    return f"demo/{in_demo}.yaml" if s.demo else f"{name}.yaml"
