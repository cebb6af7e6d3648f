"""The published names: weights are fetched from a local stand-in for the Hugging Face Hub, and
embed as the libraries' own models do; what the hub may do wrong; and the same without the hub.

The repositories have the published names and the files of their libraries, and small random
weights. ALIGN and BLIP-2 say their size in their own config.json. That of the others open_clip
knows by the name of the model, so it is told of small models of these names. What a local folder of
ALIGN or BLIP-2 embeds is compared with transformers in test_backends.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from checkpoints import CLIP, hf, open_clip, randomised, save_align, save_blip2
from commands import REPOSITORY
from hub import Hub
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import normalize
from toy_vlm import make_images

from crl.vlm import load_vlm

PUBLISHED = {
    "clip-b16": "timm/vit_base_patch16_clip_224.openai",
    "metaclip": "timm/vit_base_patch32_clip_224.metaclip_400m",
    "align": "kakaobrain/align-base",
    "blip2": "Salesforce/blip2-itm-vit-g",
}
PROMPTS = ["a red cat", "metal spheres", "a photo of objects"]


# --- weights, and their embeddings without the hub ------------------------------------------------


class Weights(NamedTuple):
    """A repository, and the unit vectors of the pictures and of `PROMPTS`."""

    folder: Path
    image: torch.Tensor  # (N, D) or (N, Q, D)
    text: torch.Tensor  # (K, D)

    @property
    def file(self) -> str:
        return min(file.name for file in self.folder.glob("*.safetensors"))


def clip(folder: Path, pictures: list[Image.Image]) -> Weights:
    model = randomised(open_clip.CLIP(**CLIP))
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    prepare = open_clip.image_transform(model.visual.image_size, is_train=False)
    batch = torch.stack([prepare(picture) for picture in pictures])
    tokens = open_clip.SimpleTokenizer(context_length=model.context_length)(PROMPTS)
    image, text, _ = model(batch, tokens)
    return Weights(folder, image, text)


def local(folder: Path, pictures: list[Image.Image], save: Callable) -> Weights:
    vlm = load_vlm(str(save(folder)), "cpu")
    image = vlm.encode_images(torch.stack([vlm.preprocess(picture) for picture in pictures]))
    return Weights(folder, normalize(image, dim=-1), normalize(vlm.encode_texts(PROMPTS), dim=-1))


def blip2(folder: Path, pictures: list[Image.Image]) -> Weights:
    weights = local(folder, pictures, save_blip2)
    model = hf.Blip2ForImageTextRetrieval.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")  # large models come in several files
    return weights


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def weights(world) -> dict[str, Weights]:
    files = make_images(world / "pictures", 5)
    pictures = [Image.open(file).convert("RGB") for file in files]
    torch.manual_seed(1)
    align = partial(local, save=save_align)
    make = {"clip-b16": clip, "metaclip": clip, "align": align, "blip2": blip2}
    with torch.no_grad():
        return {name: make[name](world / name, pictures) for name in PUBLISHED}


# --- a process that fetches and embeds ------------------------------------------------------------

# The hub's client reads its environment when it is imported. It waits before it tries again, and
# keeps what has come in chunks of 10 MB; here it does not wait, and the chunks are small.
FETCHER = """
import os, sys, time
from pathlib import Path
from crl.backends.torchvision_fix import import_torchvision
import_torchvision()
import numpy as np, open_clip, torch, transformers
from huggingface_hub import constants
from PIL import Image
from crl.run.command import command
from crl.vlm import load_vlm

constants.DOWNLOAD_CHUNK_SIZE, time.sleep = 500, lambda seconds: None
world, *prompts = sys.argv[1:]
open_clip.add_model_config(f"{world}/models")
torch.set_num_threads(1)

@command
def main(argv):
    vlm = load_vlm(name, "cpu")
    pictures = map(Image.open, sorted(Path(world, "pictures").iterdir()))
    image = vlm.encode_images(torch.stack([vlm.preprocess(picture) for picture in pictures]))
    np.savez("embedded.npz", image=image, text=vlm.encode_texts(prompts))

for line in sys.stdin:
    name, folder = line.split()
    if not (child := os.fork()):
        os.chdir(folder)
        printed = os.open("printed", os.O_CREAT | os.O_WRONLY)
        os.dup2(printed, 1), os.dup2(printed, 2)
        try:
            main()
        except SystemExit as stop:
            os._exit(stop.code)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def served(weights) -> Iterator[Hub]:
    with Hub({PUBLISHED[name]: made.folder for name, made in weights.items()}) as hub:
        yield hub


@pytest.fixture(scope="module")
def fetch(world, served) -> Iterator[Callable[[str, Path], int]]:
    """Loads a VLM by name and embeds, in a process of its own; gives its exit code."""
    (world / "models").mkdir()
    for name in ("ViT-B-16-quickgelu", "ViT-B-32-quickgelu"):
        (world / f"models/{name}.json").write_text(json.dumps(CLIP))
    proxies = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environment = os.environ | dict.fromkeys(proxies, "") | {
        "HF_ENDPOINT": served.url, "HF_HOME": f"{world}/hf", "HF_HUB_CACHE": f"{world}/hf/hub",
        "HF_HUB_OFFLINE": "0", "CRL_CACHE": f"{world}/crl", "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    line, pipe = [sys.executable, "-c", FETCHER, world, *PROMPTS], subprocess.PIPE
    with subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=environment) as process:

        def fetch(name: str, folder: Path) -> int:
            process.stdin.write(f"{name} {folder}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield fetch


@pytest.fixture
def hub(served, world) -> Hub:
    """It behaves, and nothing was fetched from it before."""
    served.behave()
    served.requests.clear()
    shutil.rmtree(world / "hf", ignore_errors=True)
    return served


def check_embeddings(folder: Path, expected: Weights) -> None:
    with np.load(folder / "embedded.npz") as arrays:
        for key, theirs in (("image", expected.image), ("text", expected.text)):
            unit = normalize(torch.tensor(arrays[key]), dim=-1)
            torch.testing.assert_close(unit, theirs, atol=1e-4, rtol=1e-4)
            assert torch.pdist(unit.flatten(1)).min() > 1e-2  # a mix-up would be seen


# --- the hub as it is, and as it may be -----------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_broken_download_resumes_and_is_kept(name, weights, hub, fetch, tmp_path):
    file = weights[name].file
    hub.behave(cuts={file: [1000, 2000]})
    assert fetch(name, tmp_path) == 0, (tmp_path / "printed").read_text()
    assert {request.repository for request in hub.requests} == {PUBLISHED[name]}
    ranges = [r.range for r in hub.requests if (r.method, r.what) == ("GET", file)]
    assert ranges == [None, "bytes=1000-", "bytes=2000-"]
    check_embeddings(tmp_path, weights[name])

    hub.behave(refusal="Unavailable")
    (tmp_path / "embedded.npz").unlink()
    assert fetch(name, tmp_path) == 0
    check_embeddings(tmp_path, weights[name])


AGAIN = "try again; without a network use vlm=demo, a local folder, or fill the Hugging Face cache"
ABSENT = (
    "the Hugging Face Hub answers 404: .* is not there, or the connection broke; try again, name"
)
FAULTS: dict[str, tuple[Callable[[str], dict[str, Any]], str]] = {
    # name: (what the hub does, given the name of a file of weights; the message)
    "broken": (lambda weights: {"cuts": {weights: [1000] * 99}}, f"({AGAIN}|{ABSENT})"),
    "broken before": (lambda _: {"cuts": {"tokenizer_config.json": [10] * 99}}, AGAIN),
    "401": (lambda _: {"refusal": "GatedRepo"}, "the Hugging Face Hub answers 401: .*`hf auth lo"),
    "404": (lambda _: {"refusal": "RepoNotFound"}, ABSENT),
    "no weights": (lambda weights: {"absent": weights}, f"({ABSENT}|not appear to have a file)"),
    "503": (lambda _: {"refusal": "Unavailable"}, AGAIN),
}
CASES = [("clip-b16", fault) for fault in FAULTS if fault != "broken before"]  # its own tokenizer
CASES += [("blip2", fault) for fault in FAULTS]


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_a_fault_is_one_line_and_half_of_nothing(name, fault, weights, world, hub, fetch, tmp_path):
    behaviour, message = FAULTS[fault]
    hub.behave(**behaviour(weights[name].file))
    assert fetch(name, tmp_path) == 2
    printed = (tmp_path / "printed").read_text()
    assert "Traceback" not in printed
    [line] = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert printed.endswith(f"{line}\n")
    assert re.search(f"error: cannot fetch .*{message}", line)
    whole = {file.stat().st_size for file in weights[name].folder.iterdir()}
    assert all(file.stat().st_size in whole for file in world.glob("hf/hub/models--*/blobs/*"))

    hub.behave()
    assert fetch(name, tmp_path) == 0
    check_embeddings(tmp_path, weights[name])
