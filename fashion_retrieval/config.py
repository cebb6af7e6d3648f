"""The configuration of evaluate.py."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from crl.representations import WithoutLabels
from crl.run.config import Distinct, EvaluationConfig, OneOrMore


class EvaluateConfig(EvaluationConfig):
    """Keys of evaluate.py."""

    replaced_by_features = EvaluationConfig.replaced_by_features | {
        "root", "dataset", "images", "split", "trained"
    }  # fmt: skip

    root: Path = Field(Path("data/deepfashion"), description="folder of ASEN's split files")
    dataset: str = Field("DeepFashion", description="its name in meta.json")
    images: Path | None = Field(None, description="folder of the images; none: root")
    split: Literal["valid", "test"] = Field("test", description="valid or test")
    bases: dict[str, str] = Field(
        {}, description="attribute: text basis (name or YAML file); none: <dataset>_<attribute>"
    )
    vlm: str = Field("clip-b16", description="the VLM, by name")
    representation: WithoutLabels = Field(
        ["paper"], min_length=1, description="paper, posterior, paper+posterior, or several"
    )
    trained: Annotated[list[Path], OneOrMore, Distinct] = Field(
        [], description="folders of train_mlp.py, train_backbone.py or train_rival.py: a row each"
    )
    heads: Path | None = Field(
        None, description="heads of the authors' code (.pth), trained with that VLM and bases"
    )
    seed: int = Field(0, ge=0, description="seed of the random draw and of the figures' queries")

    @field_validator("heads")
    @classmethod
    def _of_the_authors(cls, file: Path | None) -> Path | None:
        folder = file if file is None or file.is_dir() else file.parent
        if folder and (folder / "results.json").is_file():  # it says which VLM and bases they need
            raise ValueError(f"{file} belongs to a training of this repository; give its folder: "
                             f"trained=[{folder}]")  # fmt: skip
        return file
