"""The configuration of train_rival.py, and the prompts of the rivals in evaluate.py."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from crl.run.config import EmbeddingConfig, Word
from crl.run.training import TrainingConfig

Prompt = Literal["that", "comma", "that_has", "released"]
PROMPTS: dict[Prompt, str] = {  # `$` is the reference image
    "that": "a photo of $ that {condition}",  # of LinCIR's code, for all three
    "comma": "a photo of $ , {condition}",  # Pic2Word's own for sentences
    "that_has": "a photo of $ that has {condition}",  # ours; the others suit a sentence
    # What LinCIR's code says in the object tasks: it takes a rank, 0, for the condition
    "released": "a photo of $ that 0",
}


class RivalConfig(TrainingConfig, EmbeddingConfig):
    """Keys of train_rival.py."""

    method: Literal["lincir", "pic2word", "searle"] = Field("lincir", description="which rival")
    vlm: str = Field("clip-b16", description="the VLM, by name; it is not trained")
    captions: str = Field("data/cc3m/*.tar", description="lincir: file, folder or pattern")
    images: Path = Field(Path("data/cc3m"), description="pic2word, searle: folder of pictures")
    limit: int | None = Field(None, gt=1, description="use the first N of them; none: all")
    validation: float = Field(0.01, gt=0, lt=1, description="share of them held out: the first")
    batch_size: int = Field(512, gt=1, description="captions or images per step")
    lr: float = Field(1e-4, gt=0, allow_inf_nan=False, description="highest learning rate (AdamW)")
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    warmup: int = Field(0, ge=0, description="steps in which the rate rises to lr")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="after warmup: constant, or cosine down to 0"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="precision of the VLM")
    tagger: Literal["spacy", "list"] = Field(
        "spacy", description="lincir: what finds keywords; list: all but a list of short words"
    )
    whole_words: bool = Field(
        True, description="lincir: no keyword inside other words; false: as published"
    )
    noise_scale: float = Field(1.0, ge=0, description="lincir: factor of the noise")
    concepts: list[Word] = Field([], description="searle: class names, in sentences of our own")
    sentences: Path | None = Field(
        None, description="searle: JSONL of {concept, sentence} in their place"
    )
    inversion_steps: int = Field(350, gt=0, description="searle: steps of inversion")
    inversion_batch: int = Field(32, gt=0, description="searle: images inverted together")
    inversion_lr: float = Field(2e-2, gt=0, description="searle: learning rate of inversion")
    nearest: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = Field(
        [15, 150], description="searle: concepts of an image, in inversion and in distillation"
    )
