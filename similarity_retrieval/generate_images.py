"""Make the images that CIG needs (rivals/cig.py): each reference, as its condition changes it.

    python similarity_retrieval/generate_images.py --config configs/generate_images.yaml

Needs an image-to-image pipeline of diffusers (`pip install -e '.[generate]'`). It is given the
reference image and a plain text; the authors' SDXL, which takes the reference as two tokens of its
prompt, is not available.

Writes <outputs>/genecis_generated/<name>/<reference>_<condition>.png, one image for each pair of a
reference and a condition (the names: `file_name` in rivals/cig.py). A killed run goes on where it
was. Measure with evaluate.py "rivals=[...]" generated=<outputs>/genecis_generated/<name>.
"""

from crl.run.command import command

import warnings
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field

from crl.backends.precision import PRECISIONS
from crl.backends.torchvision_fix import import_torchvision
from crl.images import UnreadableImage, open_image
from crl.run.config import load_config
from crl.run.distributed import available_device
from crl.run.errors import Missing, UserError
from crl.run.files import alone_in, atomic_path, read_text, write_text
from crl.run.progress import progress
from similarity_retrieval.config import GeneCISConfig
from similarity_retrieval.datasets import images, load
from similarity_retrieval.rivals.cig import file_names

DARK, AGAIN = 10, 5  # mean brightness of 0 to 255 that is nearly black; more tries, as published
SETTINGS = {"model", "prompt", "steps", "strength", "size", "precision", "seed"}


class GenerateConfig(GeneCISConfig):
    """Keys of generate_images.py."""

    model: str = Field(
        "stabilityai/stable-diffusion-xl-base-1.0", description="of diffusers: a name or a folder"
    )
    prompt: str = Field(
        "a photo with a {condition}", pattern=r"\{condition\}", description="text for the model"
    )
    steps: int = Field(50, ge=2, description="steps of denoising")
    strength: float = Field(
        0.8, ge=0.5, le=1, description="share of the steps that are done: how much may change"
    )
    size: int = Field(512, gt=0, multiple_of=64, description="height and width in pixels")
    precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="of the model")
    seed: int = Field(1600, ge=0, description="of each image; + 1 while it is nearly black")


def generate(config: GenerateConfig) -> None:
    """Make the images that are missing in <outputs>/genecis_generated/<name>."""
    data = load(config.tasks, config.root)
    pictures = images(data, config.root, config.coco, config.visual_genome)
    folder = config.outputs / "genecis_generated" / config.name
    wanted: dict[str, np.ndarray] = {}  # reference and condition
    for templates in data.tasks.values():
        wanted |= zip(file_names(data, templates), templates.pairs[0], strict=True)
    settings = config.model_dump_json(include=SETTINGS, indent=1)
    with alone_in(folder):
        missing = {name: pair for name, pair in wanted.items() if not (folder / name).is_file()}
        if (made := folder / "settings.json").exists() and read_text(made) != settings:
            raise UserError(f"{folder} holds images of other settings; take another name=, or "
                            "delete it")  # fmt: skip
        pipeline = load_pipeline(config) if missing else None
        write_text(made, settings)
        for name in progress(missing, label="images", unit="images"):
            reference, condition = missing[name]
            try:
                picture = open_image(pictures[reference])
            except UnreadableImage as error:
                raise UserError(f"cannot read the image {data.ids[reference]}: {error}") from error
            prompt = config.prompt.replace("{condition}", data.conditions[condition])
            image = draw(pipeline, ImageOps.fit(picture, (config.size,) * 2), prompt, config)
            with atomic_path(folder / name) as temporary:
                image.save(temporary, "PNG")
    print(f"{len(wanted)} images, {len(missing)} of them new: {folder}")


def draw(
    pipeline: Any, reference: Image.Image, prompt: str, config: GenerateConfig
) -> Image.Image:  # fmt: skip
    """What the pipeline makes of a reference image and a text; again if it is nearly black."""
    for seed in range(config.seed, config.seed + AGAIN + 1):
        image = pipeline(
            prompt=prompt, image=reference, strength=config.strength,
            num_inference_steps=config.steps, generator=torch.Generator().manual_seed(seed),
        ).images[0]  # fmt: skip
        if np.asarray(image.convert("RGB")).mean() > DARK:
            return image
    warnings.warn(f"{prompt!r}: nearly black with {AGAIN + 1} seeds; kept", stacklevel=2)
    return image


def load_pipeline(config: GenerateConfig) -> Any:
    """A UserError: diffusers is not installed, or cannot load `config.model`."""
    device = available_device(config.device)
    import_torchvision()
    try:
        from diffusers import AutoPipelineForImage2Image  # here: heavy and optional
    except ImportError:
        raise Missing("diffusers is not installed: pip install -e '.[generate]'") from None
    how = {"torch_dtype": PRECISIONS[config.precision], "use_safetensors": True}
    try:
        pipeline = AutoPipelineForImage2Image.from_pretrained(config.model, **how)
    except (OSError, ValueError) as error:
        raise UserError(f"diffusers cannot load {config.model} for image to image: {error}; name "
                        "another model, or a folder with its files") from error  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


@command
def main(argv: list[str]) -> None:
    generate(load_config(GenerateConfig, argv, __doc__))


if __name__ == "__main__":
    main()
