"""The configuration of clustering.py, few_shot.py and retrieval.py."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from classification_clustering.datasets import LOADERS
from crl.basis import TextBasis, basis_label
from crl.representations import Representations
from crl.run.config import Distinct, EvaluationConfig, OneOrMore
from crl.run.errors import nearest


class EvaluateConfig(EvaluationConfig):
    """Keys of clustering.py, few_shot.py and retrieval.py."""

    replaced_by_features = EvaluationConfig.replaced_by_features | {
        "data", "root", "images", "criteria", "unreadable", "vlm_prompt", "rivals", "instructed",
        "send",
    }  # fmt: skip

    data: str | None = Field(None, description=f"data set: {', '.join(LOADERS)}")
    root: Path = Field(Path("data"), description="folder that holds the data set")
    images: int | None = Field(None, description="how many images there must be")
    criteria: Annotated[list[str], OneOrMore] = Field([], description="one or more criteria")
    bases: dict[str, str] = Field({}, description="criterion: text basis (name or YAML file)")
    vlm_prompt: str | None = Field(
        None, description="in place of the bases' own, with {text}; {criterion} is its name"
    )
    vlm: Annotated[list[str], OneOrMore] = Field(
        ["clip"], description="one or more VLMs; [] with instructed"
    )
    instructed: Annotated[list[str], OneOrMore, Distinct] = Field(
        [], description="models that are told the criterion, see crl/backends/instructed.py"
    )
    send: bool = Field(False, description="pictures may be sent to a server elsewhere")
    unreadable: Literal["error", "skip"] = Field(
        "error", description="at an image that cannot be opened: error, or skip it"
    )
    representation: Representations = Field(
        ["paper"], min_length=1, description="paper, posterior, paper+posterior, or several"
    )
    rivals: Annotated[list[Path], OneOrMore, Distinct] = Field(
        [], description="folders of train_rival.py, in clustering"
    )
    shots: Annotated[list[PositiveInt], OneOrMore] = Field(
        [1, 5, 10], min_length=1, description="training images per class"
    )
    seeds: int = Field(20, gt=0, description="number of repetitions, with seeds 0, 1, ...")

    @field_validator("vlm_prompt")
    @classmethod
    def _has_one_slot(cls, prompt: str | None) -> str | None:
        if prompt is not None and prompt.count("{text}") != 1:
            raise ValueError("must contain {text} exactly once")
        return prompt

    @model_validator(mode="after")
    def _data_or_features(self) -> "EvaluateConfig":
        if not self.features and (self.data is None or not self.criteria):
            raise ValueError("set data and criteria (see configs/), or features=FILE.npz")
        if not self.vlm and not self.instructed:
            raise ValueError("vlm: name one or more; or models that are told: instructed=...")
        if self.data is not None and self.data not in LOADERS:
            raise ValueError(f"unknown data set {self.data!r}; {nearest(self.data, LOADERS)}")
        for criterion in self.bases:
            if criterion not in self.criteria:
                hint = nearest(criterion, self.criteria)
                raise ValueError(f"bases names {criterion!r}, which is not in criteria; {hint}")
        return self

    def basis(self, criterion: str) -> tuple[TextBasis, str]:
        """The text basis, and what tables call it: its name, and the prompt if it is another."""
        name = self.bases.get(criterion, f"{self.data}_{criterion}")
        basis, label = TextBasis.load(name, self.texts), basis_label(name)
        if self.vlm_prompt is None:
            return basis, label
        prompt = self.vlm_prompt.replace("{criterion}", criterion)
        return basis.model_copy(update={"vlm_prompt": prompt}), f"{label} in {self.vlm_prompt!r}"
