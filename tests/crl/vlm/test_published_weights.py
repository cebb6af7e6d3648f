"""The published names from end to end: a command fetches weights from a local stand-in for the
Hugging Face Hub and embeds with them; what the hub may do wrong; and the same without the hub.

The repositories have the published names and the files of their libraries, and random weights.
Those of `clip` have the published size. The others are small. ALIGN and BLIP-2 say so in their own
config.json. Of `clip-b16` and `metaclip` open_clip knows the size by the name of the model, so there
the command is told of a small model of that name.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from checkpoints import CLIP, randomised, save_align, save_blip2
from commands import REPOSITORY, run_python
from hub import Hub, serving
from killing import Forks
from PIL import Image
from safetensors.torch import save_file
from toy_vlm import ToyVLM, make_images

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.run.torchvision_fix import import_torchvision

import_torchvision()
import open_clip  # noqa: E402
import transformers as hf  # noqa: E402

PUBLISHED = {
    "clip": "timm/vit_base_patch32_clip_224.openai",
    "clip-b16": "timm/vit_base_patch16_clip_224.openai",
    "metaclip": "timm/vit_base_patch32_clip_224.metaclip_400m",
    "align": "kakaobrain/align-base",
    "blip2": "Salesforce/blip2-itm-vit-g",
}
SMALL = ("clip-b16", "metaclip", "align", "blip2")
SCRIPT = "classification_clustering/clustering.py"
PROMPTS = TextBasis.load("clevr4_color", 3).prompts


# --- weights, and their embeddings by the libraries alone -----------------------------------------


class Weights(NamedTuple):
    """A repository, and the unit vectors of the pictures and of `PROMPTS`."""

    folder: Path
    image: torch.Tensor  # (N, D) or (N, Q, D)
    text: torch.Tensor  # (K, D)


def clip(folder: Path, pictures: list[Image.Image], config: dict[str, Any] = CLIP) -> Weights:
    model = randomised(open_clip.CLIP(**config))
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    prepare = open_clip.image_transform(model.visual.image_size, is_train=False)
    batch = torch.stack([prepare(picture) for picture in pictures])
    tokens = open_clip.SimpleTokenizer(context_length=model.context_length)(PROMPTS)
    image, text, _ = model(batch, tokens)
    return Weights(folder, image, text)


def align(folder: Path, pictures: list[Image.Image]) -> Weights:
    model = hf.AlignModel.from_pretrained(save_align(folder)).eval()
    full = model(**pixels(folder, pictures), **tokens(folder, padding="max_length", max_length=64))
    return Weights(folder, full.image_embeds, full.text_embeds)


def blip2(folder: Path, pictures: list[Image.Image]) -> Weights:
    vision = hf.Blip2VisionModelWithProjection.from_pretrained(save_blip2(folder)).eval()
    language = hf.Blip2TextModelWithProjection.from_pretrained(folder).eval()
    words = tokens(folder, padding=True, return_token_type_ids=False)
    image = vision(**pixels(folder, pictures)).image_embeds
    return Weights(folder, image, language(**words).text_embeds[:, 0])


def pixels(folder: Path, pictures: list[Image.Image]) -> Any:
    prepare = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return prepare(pictures, return_tensors="pt")


def tokens(folder: Path, **more: Any) -> Any:
    return hf.AutoTokenizer.from_pretrained(folder)(PROMPTS, return_tensors="pt", **more)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Six pictures of two classes."""
    folder = tmp_path_factory.mktemp("world")
    make_images(folder / "pictures/color/blue", 3)
    make_images(folder / "pictures/color/red", 3, first=3)
    return folder


def files(world: Path) -> list[Path]:
    return sorted(world.glob("pictures/color/*/*.png"))


@pytest.fixture(scope="module")
def pictures(world) -> list[Image.Image]:
    return [Image.open(file).convert("RGB") for file in files(world)]


@pytest.fixture(scope="module")
def small(world, pictures) -> dict[str, Weights]:
    torch.manual_seed(1)
    make = {"clip-b16": clip, "metaclip": clip, "align": align, "blip2": blip2}
    with torch.no_grad():
        return {name: make[name](world / name, pictures) for name in SMALL}


# --- the command ----------------------------------------------------------------------------------


def settings(world: Path, folder: Path, vlms: str) -> list[str]:
    """Arguments of the script."""
    given = ["--config", f"{REPOSITORY}/configs/folder.yaml", f"root={world}/pictures"]
    given += ["criteria=[color]", "bases={color: clevr4_color}", "texts=3", f"vlm={vlms}"]
    kept = [f"cache={folder}/embeddings", f"outputs={folder}/outputs"]
    return [*given, *kept, "seeds=2", "figures=no"]


def environment(folder: Path, hub: Hub) -> dict[str, str]:
    """Nothing that is in the user's own caches is seen, and no proxy stands before the hub."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "")
    return {
        **proxies,
        **{name.upper(): "" for name in proxies},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": f"{folder}/hf",
        "HF_HUB_CACHE": f"{folder}/hf/hub",
        "HF_HUB_OFFLINE": "0",
        "CRL_CACHE": f"{folder}/crl",
    }


def scores(folder: Path) -> dict[str, Any]:
    """What the command wrote: VLM -> fingerprint and scores."""
    text = (folder / "outputs/clustering/folder/results.json").read_text()
    return {cell["vlm"]: (cell["vlm_fingerprint"], cell["scores"]) for cell in json.loads(text)["cells"]}


def check_embeddings(folder: Path, world: Path, expected: dict[str, Weights]) -> None:
    """What the command kept equals what the libraries give."""
    found = scores(folder)
    assert found.keys() == expected.keys()
    for name, (fingerprint, _) in found.items():
        reader = ToyVLM(fingerprint)  # finds all in the cache: encodes nothing itself
        image = torch.tensor(embed_images(reader, files(world), folder / "embeddings").image)
        text = torch.tensor(embed_texts(reader, PROMPTS, folder / "embeddings"))
        assert not reader.batches
        for ours, theirs in ((image, expected[name].image), (text, expected[name].text)):
            unit = torch.nn.functional.normalize(ours, dim=-1)
            torch.testing.assert_close(unit, theirs, atol=1e-4, rtol=1e-4)
            assert torch.pdist(unit.flatten(1)).min() > 1e-2  # a mix-up would be seen


# --- tests ----------------------------------------------------------------------------------------


def test_fetch_then_the_same_without_the_hub(small, world, pictures, tmp_path):
    """`clip` in its published size, and the two of transformers, by the command as published."""
    torch.manual_seed(0)
    with torch.no_grad():
        full = clip(tmp_path / "clip", pictures, open_clip.get_model_config("ViT-B-32-quickgelu"))
    weights = {"clip": full, "align": small["align"], "blip2": small["blip2"]}
    repositories = {PUBLISHED[name]: of.folder for name, of in weights.items()}

    def run(folder: Path, **more: str) -> None:
        command = settings(world, folder, f"[{','.join(weights)}]")
        done = run_python(REPOSITORY / SCRIPT, *command, **{**environment(tmp_path, hub), **more})
        assert done.returncode == 0, done.stderr

    with serving(repositories) as hub:
        run(tmp_path / "online")
    assert {request.repository for request in hub.requests} == set(repositories)
    check_embeddings(tmp_path / "online", world, weights)

    # Another cache of our own, so that the models are loaded again.
    run(tmp_path / "offline", HF_HUB_OFFLINE="1", CRL_CACHE=f"{tmp_path}/crl-offline")
    check_embeddings(tmp_path / "offline", world, weights)
    assert scores(tmp_path / "offline") == scores(tmp_path / "online")


# The hub's client waits between its tries; here it does not.
HURRIED = """
import sys, time
from crl.run.torchvision_fix import import_torchvision
import_torchvision()
import killing, open_clip
open_clip.add_model_config(sys.argv[1])
time.sleep = lambda seconds: None
killing.serve()
"""


class Hurried(Forks):
    """Runs commands one after the other, each in a process of its own that starts at once."""

    def __init__(self, models: Path, environment: dict[str, str]) -> None:
        self.models, self.environment = models, environment

    def __enter__(self) -> "Hurried":
        paths = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests/helpers")))
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", HURRIED, self.models],
            stdin=pipe,
            stdout=pipe,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, **self.environment},
        )
        return self


@pytest.fixture(scope="module")
def hub(small) -> Iterator[Hub]:
    with serving({PUBLISHED[name]: weights.folder for name, weights in small.items()}) as hub:
        yield hub


@pytest.fixture(scope="module")
def finish(world, hub) -> Iterator[Callable[..., int]]:
    models = world / "models"
    models.mkdir()
    for name in ("ViT-B-16-quickgelu", "ViT-B-32-quickgelu"):
        (models / f"{name}.json").write_text(json.dumps(CLIP))
    with Hurried(models, environment(world, hub)) as forks:
        yield forks.finish


def breaks_off(hub: Hub, weights: Path) -> None:
    hub.cuts = {weights.name: [1000] * 99}


def breaks_off_early(hub: Hub, weights: Path) -> None:
    hub.cuts = {"tokenizer_config.json": [10] * 99, **dict.fromkeys([weights.name], [10] * 99)}


FAULTS: dict[str, tuple[Callable[[Hub, Path], None], str]] = {
    # name: (what the hub does, what is said)
}


@pytest.mark.parametrize("name", SMALL)
def test_faults_of_the_hub(name, small, world, hub, finish, tmp_path):
    weights = next(small[name].folder.glob("*model.safetensors"))
    for n in range(2):
        t = __import__("time").time()
        hub.behave()
        code = finish(tmp_path, [SCRIPT, *settings(world, tmp_path / str(n), name)])
        print(code, __import__("time").time() - t)
        assert code == 0, (tmp_path / "printed").read_text()
    check_embeddings(tmp_path / "0", world, {name: small[name]})
