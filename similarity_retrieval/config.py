"""The configuration of evaluate.py."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator, model_validator

from crl.representations import WithoutLabels
from crl.run.config import Distinct, EvaluationConfig, OneOrMore, RunConfig
from similarity_retrieval.datasets import TASKS, Task
from similarity_retrieval.method import Balance, TiePolicy
from similarity_retrieval.rivals.config import PROMPTS as RIVAL_PROMPTS
from similarity_retrieval.rivals.config import Prompt

BASES: dict[Task, str | dict[str, str]] = {
    "focus_object": "genecis_scene",
    "change_object": "genecis_scene",
    "focus_attribute": {"color": "clevr4_color", "material": "genecis_material",
                        "other": "genecis_attribute"},
    "change_attribute": "genecis_object",
}  # fmt: skip
PLACES = ("left", "right", "top", "lower", "mid")
ON_PLACES = [f"a photo with a {{condition}} on the {place}" for place in PLACES]  # the paper's five
PROMPTS: dict[Task, list[str]] = {
    "focus_object": ON_PLACES,
    "change_object": ON_PLACES,
    "focus_attribute": [],  # the condition `color` says what to compare, not what to look for
    "change_attribute": ["a photo with a {condition} object"],
}


class GeneCISConfig(RunConfig):
    """Where GeneCIS is."""

    tasks: Annotated[list[Task], OneOrMore, Distinct] = Field(
        list(TASKS[:2]), min_length=1, description=f"one or more of {', '.join(TASKS)}"
    )
    root: Path = Field(Path("data/genecis"), description="folder of the templates, <task>.json")
    coco: Path | None = Field(None, description="folder with val2017/; none: <root>/coco")
    visual_genome: Path | None = Field(None, description="folder with VG_100K/ and VG_100K_2/")


class EvaluateConfig(EvaluationConfig, GeneCISConfig):
    """Keys of evaluate.py."""

    replaced_by_features = EvaluationConfig.replaced_by_features | {
        "trained", "prompts", "coco", "visual_genome", "rivals", "rival_prompts",
        "generated", "reference_weight",
    }  # fmt: skip

    vlm: str = Field("clip-b16", description="the VLM, by name")
    combiner: Path | None = Field(None, description="file of a Combiner for that VLM")
    trained: list[Path] = Field([], description="folders of train_combiner.py or GeneCIS's files")
    rivals: Annotated[list[str], Distinct] = Field(
        [], description="folders of train_rival.py, or method:FILE of published weights, for vlm"
    )
    rival_prompts: Annotated[list[Prompt], OneOrMore, Distinct] = Field(
        ["that"], min_length=1, description=f"prompts of the rivals: {', '.join(RIVAL_PROMPTS)}"
    )
    generated: Path | None = Field(
        None, description="CIG: folder of generate_images.py; adds a row to each of the rivals'"
    )
    reference_weight: float = Field(
        0.85, ge=0, le=1, description="CIG: of the reference; generated images have the rest of 1"
    )
    bases: dict[Task, str | dict[str, str]] = Field(
        BASES, description="task: text basis, or {condition: text basis, other: text basis}"
    )
    prompts: dict[Task, list[Annotated[str, Field(pattern=r"\{condition\}")]]] = Field(
        PROMPTS, description="task: prompts of CRL for {condition}; their embeddings are averaged"
    )
    weight: float = Field(10, ge=0, description="weight of the basis in CRL's score (paper: 10)")
    representation: WithoutLabels = Field(
        ["paper"], min_length=1, description="paper, posterior, or several"
    )
    balance: Annotated[list[Balance], OneOrMore, Distinct] = Field(
        ["paper"], min_length=1, description="balance of CRL's two parts: paper, standard, or both"
    )
    tie_policy: TiePolicy = Field(
        "fair", description="fair: a tie counts as a random order; paper: the target comes first"
    )

    @model_validator(mode="after")
    def _fused_with_something(self):
        if self.generated and not self.rivals:
            raise ValueError("generated needs rivals, whose queries take part in CIG's")
        return self

    @field_validator("bases", "prompts")
    @classmethod
    def _others_by_default(cls, given: dict, info: ValidationInfo) -> dict:
        return {**cls.model_fields[info.field_name].default, **given}
