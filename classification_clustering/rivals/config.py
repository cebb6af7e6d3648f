"""The configuration of train_rival.py."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from classification_clustering.datasets import LOADERS
from crl.run.config import Config, OneOrMore, Word
from crl.run.errors import nearest
from crl.run.store import EMBEDDINGS
from crl.run.training import TrainingConfig


class Stage(Config):
    """A part of a training."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=1)
    lr: float = Field(gt=0)


class RivalConfig(TrainingConfig):
    """Keys of train_rival.py."""

    method: Literal["cc", "scan", "multi_map"] = Field("cc", description="which rival")
    data: str = Field("clevr4", description=f"data set: {', '.join(LOADERS)}")
    root: Path = Field(Path("data"), description="folder that holds the data set")
    images: int | None = Field(None, description="how many images there must be")
    criteria: Annotated[list[str], OneOrMore] = Field(
        ["shape"], min_length=1, description="criteria that the clustering is for: as many clusters"
    )
    stages: list[Stage] = Field(
        [], description="scan: {epochs, batch_size, lr} of SimCLR, SCAN and self-labelling"
    )
    network: Literal["resnet18", "resnet34", "tiny"] = Field(
        "resnet34", description="torchvision's; tiny: a block per stage, 16 to 128 wide, ours"
    )
    size: int = Field(224, ge=16, le=1024, description="pixels of a side; images are scaled to it")
    workers: int | None = Field(None, gt=0, le=256, description="threads that decode images")
    entropy_weight: float | None = Field(
        None, ge=0, description="of the clusters' balance in the loss; none: 1 (cc), 5 (scan)"
    )
    jitter: float = Field(0.5, gt=0, description="cc: strength of the change of colors")
    neighbours: int = Field(20, gt=0, description="scan: neighbours of an image")
    confidence: float = Field(
        0.99, ge=0, lt=1, description="scan: self-labelling learns from images above it"
    )
    vlm: str = Field("clip", description="multi_map: the VLM, by name; it is not trained")
    cache: Path = Field(EMBEDDINGS, description="multi_map: folder in which embeddings are kept")
    prompt: str = Field(
        "objects with {criterion} of $", description="multi_map: the sentence; `$` is the image"
    )
    criterion_word: Word | None = Field(
        None, description="multi_map: what the prompt calls the criterion; none: its name"
    )
    references: dict[str, Annotated[list[Word], Field(min_length=1)] | Word] = Field(
        {}, description="multi_map: criterion: reference words, a text basis, or `prompt`: itself"
    )
    alpha: float = Field(
        0.2, ge=0, description="multi_map: how much tokens stay near the criterion"
    )
    beta: float = Field(0.3, ge=0, description="multi_map: and near their reference words")
    weight_decay: float = Field(0.0, ge=0, description="multi_map: weight decay of tokens")
    decay: Literal["block", "all"] = Field(
        "block", description="multi_map: which tokens decay in a step; all: as published"
    )
    text_tower: Literal["clip", "released"] = Field(
        "clip", description="multi_map: released: without positions and last norm, as published"
    )
    start: Literal["embedding", "token"] = Field(
        "embedding", description="multi_map: words as embeddings, or means of token embeddings"
    )

    @field_validator("data")
    @classmethod
    def _is_known(cls, data: str) -> str:
        if data not in LOADERS:
            raise ValueError(f"unknown data set {data!r}; {nearest(data, LOADERS)}")
        return data

    @model_validator(mode="after")
    def _stages_of_scan(self) -> "RivalConfig":
        if len(self.stages) != (3 if self.method == "scan" else 0):
            raise ValueError("scan has three stages, the others none: set or remove stages")
        total = sum(stage.epochs for stage in self.all_stages)
        if "epochs" in self.model_fields_set and self.epochs != total:
            raise ValueError(f"epochs must be that of all stages, {total}; remove it")
        self.epochs = total
        return self

    @property
    def all_stages(self) -> list[Stage]:
        return self.stages or [Stage(epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)]
