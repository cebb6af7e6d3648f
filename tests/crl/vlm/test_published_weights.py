"""The published names from end to end: a command fetches weights from a local stand-in for the
Hugging Face Hub and embeds with them; what the hub may do wrong; and the same without the hub.

The repositories have the published names and the files of their libraries, and random weights.
Those of `clip` have the published size. The others are small. ALIGN and BLIP-2 say so in their own
config.json. Of `clip-b16` and `metaclip` open_clip knows the size by the name of the model, so the
command is told of a small model of that name.
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


def small_clip(folder: Path, pictures: list[Image.Image]) -> Weights:
    return clip(folder, pictures, randomised(open_clip.CLIP(**CLIP)))


def clip(folder: Path, pictures: list[Image.Image], model: open_clip.CLIP) -> Weights:
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
    model = hf.Blip2ForImageTextRetrieval.from_pretrained(save_blip2(folder))
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")  # large models come in several files
    vision = hf.Blip2VisionModelWithProjection.from_pretrained(folder).eval()
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
    make = {"clip-b16": small_clip, "metaclip": small_clip, "align": align, "blip2": blip2}
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
    return {
        cell["vlm"]: (cell["vlm_fingerprint"], cell["scores"]) for cell in json.loads(text)["cells"]
    }


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


# --- the hub as it is, and no hub -----------------------------------------------------------------


@pytest.fixture
def fleeting(tmp_path) -> Iterator[Path]:
    """A folder for more than a gigabyte, which pytest would keep for the next three runs."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_fetched_once_then_the_same_without_the_hub(small, world, pictures, fleeting):
    """`clip` in its published size and the two of transformers, by the command as it is."""
    torch.manual_seed(0)
    with torch.no_grad():
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu")).eval()
        full = clip(fleeting / "clip", pictures, model)
    weights = {"clip": full, "align": small["align"], "blip2": small["blip2"]}
    repositories = {PUBLISHED[name]: of.folder for name, of in weights.items()}

    def run(folder: Path, **more: str) -> None:
        command = settings(world, folder, f"[{','.join(weights)}]")
        done = run_python(REPOSITORY / SCRIPT, *command, **environment(fleeting, hub) | more)
        assert done.returncode == 0, done.stderr

    with serving(repositories) as hub:
        hub.behave(cuts={"open_clip_model.safetensors": [300_000_000]})  # then the rest
        run(fleeting / "online")
    first, rest = ranges(hub, "open_clip_model.safetensors")
    assert first is None and 2e8 < int(rest.removeprefix("bytes=").removesuffix("-")) <= 3e8
    assert {request.repository for request in hub.requests} == set(repositories)
    check_embeddings(fleeting / "online", world, weights)

    # With an empty cache of our own, so that the models are loaded again.
    run(fleeting / "offline", HF_HUB_OFFLINE="1", CRL_CACHE=f"{fleeting}/offline/crl")
    check_embeddings(fleeting / "offline", world, weights)
    assert scores(fleeting / "offline") == scores(fleeting / "online")


# The hub's client waits before it tries again; here it does not.
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
    """Runs commands, each in a process of its own that starts at once."""

    def __init__(self, models: Path, environment: dict[str, str]) -> None:
        self.models, self.environment = models, environment

    def __enter__(self) -> "Hurried":
        paths = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests/helpers")))
        self.process = subprocess.Popen(
            [sys.executable, "-c", HURRIED, self.models],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **self.environment, "PYTHONPATH": paths},
        )
        return self


@pytest.fixture(scope="module")
def served(small) -> Iterator[Hub]:
    with serving({PUBLISHED[name]: weights.folder for name, weights in small.items()}) as hub:
        yield hub


@pytest.fixture(scope="module")
def finish(world, served) -> Iterator[Callable[[Path, list[str]], int]]:
    models = world / "models"
    models.mkdir()
    for name in ("ViT-B-16-quickgelu", "ViT-B-32-quickgelu"):
        (models / f"{name}.json").write_text(json.dumps(CLIP))
    with Hurried(models, environment(world, served)) as forks:
        yield forks.finish


@pytest.fixture
def hub(served, world) -> Hub:
    """It behaves, and nothing was fetched from it before."""
    served.behave()
    served.requests.clear()
    shutil.rmtree(world / "hf", ignore_errors=True)
    return served


@pytest.mark.parametrize("name", SMALL)
def test_a_broken_connection_is_tried_again_and_what_is_here_needs_no_hub(
    name, small, world, hub, finish, tmp_path
):
    file = weights_of(small[name])
    hub.behave(cuts={file: [1000, 2000]})
    assert finish(tmp_path, [SCRIPT, *settings(world, tmp_path / "online", name)]) == 0
    assert {request.repository for request in hub.requests} == {PUBLISHED[name]}
    assert len(ranges(hub, file)) == 3
    check_embeddings(tmp_path / "online", world, {name: small[name]})

    hub.behave(refusal="Unavailable")
    assert finish(tmp_path, [SCRIPT, *settings(world, tmp_path / "again", name)]) == 0
    assert scores(tmp_path / "again") == scores(tmp_path / "online")


def weights_of(weights: Weights) -> str:
    """A file of weights."""
    return sorted(weights.folder.glob("*.safetensors"))[0].name


def ranges(hub: Hub, name: str) -> list[str | None]:
    """What was asked for of a file, each time."""
    return [r.range for r in hub.requests if (r.method, r.what) == ("GET", name)]


# --- what the hub may do wrong --------------------------------------------------------------------

FAULTS: dict[str, tuple[Callable[[str], dict[str, Any]], str]] = {
    # name: (what the hub does, given the name of a file of weights; what is said)
    "broken": (
        lambda weights: {"cuts": {weights: [1000] * 99}},
        r"Error while downloading from localhost:\d+ .*; try again; without a network use vlm=demo",
    ),
    "broken before": (
        lambda weights: {"cuts": {"tokenizer_config.json": [10] * 99}},
        r"Error while downloading from 127.0.0.1:\d+ .*; try again; without a network use vlm=demo",
    ),
    "401": (
        lambda weights: {"refusal": "GatedRepo"},
        "the Hugging Face Hub answers 401: .*`hf auth login`; or use vlm=demo or a local folder$",
    ),
    "404": (
        lambda weights: {"refusal": "RepoNotFound"},
        "the Hugging Face Hub answers 404: .* is not there; .* or use vlm=demo or a local folder$",
    ),
    "no weights": (  # and a broken connection before, which was mended
        lambda weights: {"absent": weights, "cuts": {"tokenizer_config.json": [10]}},
        "(the Hugging Face Hub answers 404: .* is not there|does not appear to have a file named)",
    ),
    "503": (
        lambda weights: {"refusal": "Unavailable"},
        r"HTTP Error 503 .* 127.0.0.1:\d+; try again; without a network use vlm=demo",
    ),
}
CASES = [("clip-b16", fault) for fault in FAULTS if fault != "broken before"]  # its own tokenizer
CASES += [("blip2", fault) for fault in FAULTS]


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_fault_is_said_in_one_line_and_leaves_nothing_half_done(
    name, fault, small, world, hub, finish, tmp_path
):
    does, said = FAULTS[fault]
    hub.behave(**does(weights_of(small[name])))
    command = [SCRIPT, *settings(world, tmp_path, name)]
    assert finish(tmp_path, command) == 2
    printed = (tmp_path / "printed").read_text()
    assert "Traceback" not in printed
    [line] = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert printed.endswith(f"{line}\n")
    assert re.search(f"error: cannot fetch .*{said}", line)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["printed"]
    whole = {file.stat().st_size for file in small[name].folder.iterdir()}
    assert all(file.stat().st_size in whole for file in world.glob("hf/hub/models--*/blobs/*"))

    hub.behave()
    assert finish(tmp_path, command) == 0
    check_embeddings(tmp_path, world, {name: small[name]})
