"""The paper's thirteen tables: what each shows, and the runs of the task scripts that it needs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from crl.run.files import read_yaml, slug
from paper_tables.runs import CONFIGS, Run, Settings, make
from similarity_retrieval.datasets import WEIGHTS

VLMS = ["clip", "align", "metaclip", "blip2"]
TOWER = ["clip-b16"]  # of GeneCIS and of fashion retrieval
CRITERIA = {"clevr4": ["texture", "shape", "color", "count"], "cards": ["number", "suits"]}
GARMENTS = {a: f"deepfashion_{a}" for a in ("texture", "fabric", "shape", "part", "style")}
DEMO_IMAGES, QUICK_IMAGES = 3000, 600  # as scripts/demo.sh draws
NUMBERS = [10, 20, 50, 100, 200, 300, 400, 500]  # of texts
BEYOND: dict[str, Any] = {"representation": ["paper", "posterior"]}  # the second is not the paper's
# Rows of ablations: the end of the names of their lists. Those of Tables 1 and 2 have none.
LLMS = {"GPT-4o": "", "Deepseek-v3": "_deepseek", "Gemini 2.5": "_gemini", "Claude 4": "_claude"}
TEMPERATURES = {"0": "_temperature0", "0.5": "_temperature0.5", "1": "", "1.5": "_temperature1.5"}
LLM_PROMPTS = {"1": "", **{row: f"_llm_prompt{row}" for row in "2345"}}
PICTURES = {"2": "a photo", "3": "itap", "4": "art", "5": "a cartoon"}
VLM_PROMPTS = {row: f"{p} with the {{criterion}} of {{text}}" for row, p in PICTURES.items()}


class PaperTable(NamedTuple):
    title: str
    runs: dict[str, list[Run]]  # of each row of an ablation; in other tables all stand under ""
    varied: str = ""  # what an ablation varies
    quoted: tuple[str, ...] = ()  # methods that this repository does not have
    trained: tuple[str, ...] = ()  # methods with a training
    method: str = "CLIP+CRL"  # the row of Tables 1 to 4 that an ablation is about

    @property
    def in_order(self) -> list[tuple[str, Run]]:
        """Each run with its row, after those that it needs."""
        pairs = [(row, run) for row, runs in self.runs.items() for run in runs]
        return list(dict.fromkeys((row, one) for row, run in pairs for one in [*run.before, run]))


def paper_tables(s: Settings) -> dict[int, PaperTable]:
    """The tables by their numbers."""
    balances: dict[str, Any] = {**BEYOND, "balance": ["paper", "standard"]}
    vlms, n_texts = s.vlms(TOWER), "number of texts"
    shots, groups = (labelled(s, task, VLMS, **BEYOND) for task in ("few_shot", "clustering"))
    scenes = genecis(s, **balances) + genecis(s, trained=True, **balances)
    garments = [fashion(s, v, t, **BEYOND) for v in vlms for t in (None, *trainings(s, v))]
    shots_by = {str(n): labelled(s, "few_shot", number=n) for n in NUMBERS}
    groups_by = {str(n): labelled(s, "clustering", number=n) for n in NUMBERS}
    scenes_by = {str(n): genecis(s, trained=True, number=n) for n in NUMBERS}
    fewer = [10, 50, 200, 500] if s.demo else NUMBERS  # two trainings each
    garments_by = {str(n): [fashion(s, v, backbone(s, v, n), n) for v in vlms] for n in fewer}
    title = "Few-shot classification, accuracy in percent, with 1, 5 and 10 images per class"
    tables = {
        1: PaperTable(title, {"": shots}),
        2: PaperTable("Clustering, NMI, ACC and ARI in percent", {"": groups + clusterers(s)}),
        3: PaperTable(
            "Similarity retrieval (GeneCIS), Recall@1, 2 and 3 in percent",
            {"": scenes + inverters(s)},
        ),
        4: PaperTable("Fashion retrieval (DeepFashion), mAP in percent", {"": garments}),
        5: PaperTable(f"Few-shot classification by {n_texts}", shots_by, n_texts),
        6: PaperTable(f"Clustering by {n_texts}", groups_by, n_texts),
        7: PaperTable(
            f"Similarity retrieval by {n_texts}, after GeneCIS's training", scenes_by, n_texts
        ),
        8: PaperTable("The text bases of these tables (the paper's holds no scores)", {}),
        9: PaperTable(f"Fashion retrieval by {n_texts}, both stages trained", garments_by, n_texts),
    }
    title = "Clustering and few-shot classification by {}, mean of all settings"
    lists = {"LLM": LLMS, "temperature of the LLM": TEMPERATURES, "LLM prompt": LLM_PROMPTS}
    for number, (varied, ends) in enumerate(lists.items(), start=10):
        runs = {row: both(s, lists=end) for row, end in ends.items()}
        tables[number] = PaperTable(title.format(varied), runs, varied)
    runs = {"1": both(s)}  # the prompt of each basis
    runs |= {row: both(s, vlm_prompt=prompt) for row, prompt in VLM_PROMPTS.items()}
    tables[13] = PaperTable(title.format("VLM prompt"), runs, "VLM prompt")
    more: dict[int, dict[str, Any]] = {
        3: {"quoted": ("CIG",)},  # ours has another name: its training is not published
        4: {"trained": ("Triplet", "CSN", "ASEN", "ASEN++", "RPF", "CLIP+CRL")},
        7: {"method": "CLIP+CRL*"},  # the paper's numbers are near those of this row of Table 3
        9: {"trained": ("CLIP+CRL",)},
    }
    return {n: table._replace(**more.get(n, {})) for n, table in tables.items()}


def both(s: Settings, **keys: Any) -> list[Run]:
    return [*labelled(s, "clustering", **keys), *labelled(s, "few_shot", **keys)]


def labelled(s: Settings, task: str, vlms: Sequence[str] = (), **keys: Any) -> list[Run]:
    """clustering.py or few_shot.py on Clevr4 and on Cards, a run for each of the VLMs; without
    `vlms` an ablation with CLIP."""
    keys |= {"root": s.data, "ablation": not vlms}
    if s.demo:
        keys |= {"images": QUICK_IMAGES if s.quick else DEMO_IMAGES}
        keys |= {} if vlms else {"seeds": 5}
    return [
        make(s, task, config(s, data, data), vlm, {c: f"{data}_{c}" for c in criteria}, **keys)
        for data, criteria in CRITERIA.items()
        for vlm in s.vlms(list(vlms) or ["clip"])
    ]


def genecis(s: Settings, trained: bool = False, number: int = 0, **keys) -> list[Run]:
    """evaluate.py on GeneCIS's object tasks: the paper's CLIP; or `trained`, with the weights that
    GeneCIS published (* in the paper). In the demo a Combiner is trained before."""
    root, file = s.data / "genecis", config(s, "genecis", "scenes")
    keys |= {"root": root, "ablation": bool(number), "number": number}
    if s.demo:
        keys["before"] = demo_combiner(s)
        keys["trained"] = [keys["before"][-1].folder]
        keys |= {"balance": "paper"} if number else {}
    elif trained:
        keys |= {"trained": [root], "needs": [root / name for name in WEIGHTS]}
    bases = dict.fromkeys(["focus_object", "change_object"], "genecis_scene")
    return [make(s, "similarity_retrieval", file, vlm, bases, **keys) for vlm in s.vlms(TOWER)]


def clusterers(s: Settings) -> list[Run]:
    """clustering.py with each rival of Table 2. One clustering serves all criteria with as many
    classes, but Multi-MaP's is of one criterion. The demo leaves Cards out."""
    runs = []
    for data in ["clevr4"] if s.demo else CRITERIA:
        every, file = CRITERIA[data], config(s, data, data)
        images = QUICK_IMAGES if s.demo and s.quick else read_yaml(CONFIGS / file)["images"]
        groups = [every] if data == "clevr4" else [[criterion] for criterion in every]
        rivals = [(method, f"rival_{method}", some) for method in ("cc", "scan") for some in groups]
        rivals += [("multi_map", f"rival_multi_map_{data}", [c]) for c in every]
        for method, name, some in rivals:
            keys: dict[str, Any] = {"root": s.data, "images": images, "criteria": some}
            own: dict[str, Any] = {"data": data}
            if len(some) == 1:
                own["name"] = f"{'demo_' * s.demo}{method}_{some[0]}"
            training = make(s, "clustering_rivals", config(s, name, method), **keys, **own)
            keys |= {"before": [training], "rivals": [training.folder], "figures": False}
            bases = {c: f"{data}_{c}" for c in some}
            runs.append(make(s, "clustering", file, s.vlms(["clip"])[0], bases, **keys))
    return runs


def inverters(s: Settings) -> list[Run]:
    """evaluate.py with each rival of Table 3 and two prompts, and with CIG on SEARLE."""
    scenes, usual, runs = s.data / "genecis", "data/demo" if s.demo else "data", []
    bases = dict.fromkeys(["focus_object", "change_object"], "genecis_scene")
    keys: dict[str, Any] = {"root": scenes, "trained": [], "figures": False, "balance": "paper"}
    keys |= {"representation": "paper", "rival_prompts": ["that", "released"]}
    evaluation = partial(make, s, "similarity_retrieval", config(s, "genecis", "scenes"), "", bases)
    for method in ("pic2word", "lincir", "searle"):
        file = config(s, f"rival_{method}", method)
        files = read_yaml(CONFIGS / file)
        files = {key: files[key].replace(usual, str(s.data), 1)
                 for key in ("captions", "images", "sentences") if key in files}  # fmt: skip
        needs = [Path(name).parent if "*" in name else Path(name) for name in files.values()]
        training = make(s, "genecis_rivals", file, needs=needs, **files)
        keys |= {"before": [training], "rivals": [training.folder]}
        runs.append(evaluation(**keys))
    if s.demo:  # scripts/demo/draw_oracle.py draws its images
        oracle = s.data / "oracle"
        return [*runs, evaluation(**keys, generated=oracle, needs=[oracle])]
    images = make(s, "genecis_generated", "generate_images.yaml", root=scenes)
    keys["before"] = [images, training]
    return [*runs, evaluation(**keys, generated=images.folder)]


def demo_combiner(s: Settings) -> list[Run]:
    """Triplets from drawn captions, and a Combiner from the triplets."""
    coco = s.data / "genecis" / "coco"
    graphs = coco / "annotations" / "relations_train2017.jsonl"
    mine = make(s, "triplets", "demo/mine.yaml", graphs=graphs, needs=[graphs])
    keys: dict[str, Any] = {"triplets": mine.folder / "triplets.jsonl", "images": coco}
    return [mine, make(s, "combiner", "demo/combiner.yaml", needs=[coco / "train2017"], **keys)]


def clothes(s: Settings, task: str, files: tuple[str, str], vlm: str = "", **keys: Any) -> Run:
    """A script of fashion_retrieval; `files`: its configuration for the paper's and drawn data."""
    root = s.data / ("garments" if s.demo else "deepfashion")
    return make(s, task, config(s, *files), vlm, root=root, **keys)


def fashion(s: Settings, vlm: str, training: Run | None, number: int = 0, **keys: Any) -> Run:
    """evaluate.py on DeepFashion, of CRL without training, or also of a training."""
    if training:
        keys |= {"trained": [training.folder], "before": [*training.before, training]}
    keys |= {"ablation": bool(number), "ours": GARMENTS}
    return clothes(s, "fashion_retrieval", ("deepfashion", "garments"), vlm, number=number, **keys)


def heads(s: Settings, vlm: str, number: int = 0) -> Run:
    """CRL's training, stage 1. With other texts or VLMs it has another name."""
    files = "deepfashion_mlp", "garments_mlp"
    # The authors' repository has no long lists for DeepFashion: so those of Table 9 are ours.
    official = not number and all((s.official / f"{n}.yaml").exists() for n in GARMENTS.values())
    parts = [read_yaml(CONFIGS / config(s, *files))["name"], "official" * official]
    parts += [slug(vlm) if vlm not in ("", *TOWER) else "", f"texts{number}" if number else ""]
    name = "-".join(filter(None, parts))
    return clothes(s, "fashion_mlp", files, vlm, number=number, ours=GARMENTS, name=name)


def backbone(s: Settings, vlm: str, number: int = 0) -> Run:
    """Stage 2, which takes VLM and texts from stage 1."""
    first, files = heads(s, vlm, number), ("deepfashion_backbone", "garments_backbone")
    keys = {"before": [first], "heads": first.folder, "name": first.config.name}
    return clothes(s, "fashion_backbone", files, **keys)


def trainings(s: Settings, vlm: str) -> list[Run]:
    """CRL's two stages, and those of other methods."""
    files = "deepfashion_rival", "garments_csn"
    stage2: dict[str, dict[str, Any]] = {"asen_pp": {"epochs": 20}, "rpf": {"lr": 5.5e-5}}
    names = {method: method for method in ("triplet", "csn", "asen")}
    if s.demo:
        names = {"triplet": "demo_triplet", "csn": "demo", "asen": "demo_asen"}
        stage2 = {method: {"lr": 1e-3} for method in stage2}
    rivals = [clothes(s, "fashion_rivals", files, method=m, name=n) for m, n in names.items()]
    rivals += [two_stages(s, method, **keys) for method, keys in stage2.items()]
    return [heads(s, vlm), backbone(s, vlm), *rivals]


def two_stages(s: Settings, method: str, **stage2: Any) -> Run:
    """Stage 2 of a rival, after its stage 1; `stage2`: what differs from the configuration."""
    files = f"deepfashion_{method}", f"garments_{method}"
    first = clothes(s, "fashion_rivals", files)
    stage2 |= {"before": [first], "stage1": first.folder, "name": "demo_" * s.demo + method}
    return clothes(s, "fashion_rivals", files, **stage2)


def config(s: Settings, name: str, in_demo: str) -> str:
    """A file in configs/: of the paper's data, or of the demo's."""
    return f"demo/{in_demo}.yaml" if s.demo else f"{name}.yaml"
