"""The task scripts that make results, and what is known of their results."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from classification_clustering.inputs import EvaluateConfig as ClassificationConfig

from classification_clustering import clustering, few_shot
from classification_clustering import datasets as classification_data
from classification_clustering import tables as classification_tables
from crl.run.config import Config
from fashion_retrieval import datasets as fashion_data
from fashion_retrieval import evaluate as fashion
from fashion_retrieval import tables as fashion_tables
from fashion_retrieval import train_backbone, train_mlp, train_rival
from fashion_retrieval.inputs import EvaluateConfig as FashionConfig
from similarity_retrieval import datasets as similarity_data
from similarity_retrieval import evaluate as similarity
from similarity_retrieval import mine_triplets, train_combiner
from similarity_retrieval import tables as similarity_tables
from similarity_retrieval.inputs import EvaluateConfig as SimilarityConfig


class Script(NamedTuple):
    """What a run can be.

    Attributes:
        do: runs it; gives its results, or None if it prepares another run.
        check: looks for its data, quickly; raises Missing or UserError.
        task: its folder in outputs/.
    """

    config: type[Config]
    do: Callable[..., Any]
    check: Callable[[Any], object]
    task: str
    prepares: bool = False


def _check_labelled(config: ClassificationConfig) -> None:
    for criterion in config.criteria:
        classification_data.load(config.data, config.root, criterion, config.images)


def _check_genecis(config: SimilarityConfig) -> None:
    data = similarity_data.load(config.tasks, config.root)
    folders = config.coco or config.root / "coco", config.root / "visual_genome"
    similarity_data.images(data, *folders)


def _check_fashion(config: Any) -> None:
    splits = [config.split] if isinstance(config, FashionConfig) else ["train", "valid"]
    data = fashion_data.load(config.root, config.dataset, config.images, splits)
    for split in splits:
        fashion_data.check_images(getattr(data, split).files)


def _no_check(config: Any) -> None:
    """What it needs comes from an earlier run."""


SCRIPTS = {
    "classification_clustering/few_shot.py": Script(
        ClassificationConfig, few_shot.evaluate, _check_labelled, "few_shot"
    ),
    "classification_clustering/clustering.py": Script(
        ClassificationConfig, clustering.evaluate, _check_labelled, "clustering"
    ),
    "similarity_retrieval/evaluate.py": Script(
        SimilarityConfig, similarity.evaluate, _check_genecis, "similarity_retrieval"
    ),
    "similarity_retrieval/mine_triplets.py": Script(
        mine_triplets.MineConfig, mine_triplets.mine_triplets, _no_check, "triplets", True
    ),
    "similarity_retrieval/train_combiner.py": Script(
        train_combiner.TrainConfig, train_combiner.train, _no_check, "combiner", True
    ),
    "fashion_retrieval/evaluate.py": Script(
        FashionConfig, fashion.evaluate, _check_fashion, "fashion_retrieval"
    ),
    "fashion_retrieval/train_mlp.py": Script(
        train_mlp.MlpConfig, train_mlp.train, _check_fashion, "fashion_mlp", True
    ),
    "fashion_retrieval/train_backbone.py": Script(
        train_backbone.BackboneConfig,
        train_backbone.train,
        _check_fashion,
        "fashion_backbone",
        True,
    ),
    "fashion_retrieval/train_rival.py": Script(
        train_rival.RivalConfig, train_rival.train, _check_fashion, "fashion_rivals", True
    ),
}


class Task(NamedTuple):
    """What is shown of the results of a task.

    Attributes:
        tables: its module; `table`, `notes` and `scores` of its results.
        paper: its table in configs/paper_tables.json.
    """

    tables: ModuleType
    paper: str
    title: str
    about: str


TASKS = {  # folder in outputs/
    "clustering": Task(
        classification_tables,
        "table2_clustering",
        "Clustering",
        "k-means on the universal embedding I and on R, in percent. The texts of a criterion group "
        "the same images by that criterion (paper, Table 2).",
    ),
    "few_shot": Task(
        classification_tables,
        "table1_few_shot_accuracy",
        "Few-shot classification",
        "Logistic regression on I and on R from a few labelled images per class: accuracy in "
        "percent (paper, Table 1).",
    ),
    "similarity_retrieval": Task(
        similarity_tables,
        "table3_similarity_recall",
        "Similarity retrieval",
        "Find the image that is like the reference, but for a condition: Recall@k in percent "
        "(GeneCIS; paper, Table 3).",
    ),
    "fashion_retrieval": Task(
        fashion_tables,
        "table4_fashion_map",
        "Fashion retrieval",
        "Find clothes of the same texture, fabric, shape, part or style: mean average precision "
        "in percent (DeepFashion; paper, Table 4).",
    ),
}
