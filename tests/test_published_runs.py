"""Each task command that we print is run, in a folder with small stand-ins for data and weights.

The stand-ins (drawn pictures in the official formats) are in the folders where the configurations
expect the real data. `SMALL` replaces the VLM, and values that are too large for a test.
"""

import importlib
import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import make_data
import numpy as np
import pytest
from commands import REPOSITORY
from llm_server import gives
from mistakes import features
from published import CONFIGS, PUBLISHED, python_blocks
from suite import write_suite
from told_model import ToldModel
from worlds import WORLDS

from crl.backends import instructed
from similarity_retrieval import generate_images
from similarity_retrieval.datasets import TASKS, load

# Script, in the order in which they are run -> what is added to each of its commands. Not here:
# compare_methods.py, draw_costs.py, whose own tests run them.
SMALL = {
    "scripts/demo/make_data.py": "--images 90",
    "scripts/demo/draw_oracle.py": "",
    "similarity_retrieval/mine_triplets.py": "samples=100 min_images=1",
    "similarity_retrieval/train_combiner.py": "vlm=demo epochs=1 precision=fp32 batch_size=8 "
    "accumulate=2 validation=0 workers=0 projection=16 hidden=16 images=data/demo/genecis/coco",
    "similarity_retrieval/train_rival.py": "vlm=demo captions=data/demo/genecis/coco/annotations/"
    "captions_train2017.json images=data/demo/genecis/coco/train2017 batch_size=8 epochs=1 "
    "concepts=[dog,cat] inversion_steps=1 tagger=list limit=24 sentences=null warmup=0",
    "classification_clustering/train_rival.py": "images=null network=tiny size=16 batch_size=8",
    "fashion_retrieval/train_mlp.py": "vlm=demo epochs=1 triplets=32 out=16 texts=20",
    "fashion_retrieval/train_backbone.py": "epochs=1 triplets=8 batch_size=8 workers=0",
    "fashion_retrieval/train_rival.py": "tower=demo epochs=1 triplets=8 batch_size=8 width=16 "
    "local=small workers=0",
    "similarity_retrieval/generate_images.py": "size=64",
    "similarity_retrieval/evaluate.py": "vlm=demo figures=no",
    "fashion_retrieval/evaluate.py": "vlm=demo figures=no",
    "classification_clustering/ask.py": "method=captions vlm=demo images=null",
    "classification_clustering/clustering.py": "vlm=demo images=null seeds=2 figures=no",
    "classification_clustering/few_shot.py": "vlm=demo images=null seeds=2 shots=[1] figures=no",
    "classification_clustering/retrieval.py": "vlm=demo images=null seeds=2",
    "scripts/reproduce_tables.py": "--data none",  # of the drawn data: their own tests
    "crl/commands/explore.py": "--vlm demo",
    "scripts/check_data.py": "--data none",
}
OLLAMA = "http://localhost:11434/v1"
# Cannot be had here: weights; the authors' lists; captions in the authors' files and spaCy's model;
# the Hub. The others are run in test_explore.py.
LEFT_OUT = ["...", "official_bases/", "trained=[data/genecis]", "instructed=", "hf:OWNER"]
LEFT_OUT += ["--features", "--serve"]
GRAPHS = "graphs=data/demo/genecis/coco/annotations/relations_train2017.jsonl"
ONCE = "{epochs: 1, batch_size: 8, lr: 0.01}"
SCAN = [f"stages=[{ONCE}, {ONCE}, {ONCE}]", "confidence=0.05"]
INSTEAD = {"configs/mine_cc3m.yaml": ["captions=null", "ratings=null", GRAPHS]}
INSTEAD |= {"configs/rival_cc.yaml": ["epochs=1"], "configs/demo/cc.yaml": ["epochs=1"]}
MULTI_MAP = (
    "demo/multi_map",
    *(f"rival_multi_map_{d}" for d in "clevr4 cards fruit fruit360".split()),
)
INSTEAD |= {f"configs/{name}.yaml": ["epochs=1", "vlm=demo", "batch_size=4"] for name in MULTI_MAP}
INSTEAD |= {"configs/rival_scan.yaml": SCAN, "configs/demo/scan.yaml": SCAN}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """What a user has who followed the READMEs: data, a basis, a VLM and embeddings of his own."""
    folder = tmp_path_factory.mktemp("workspace")
    data, drawn = folder / "data", folder / "data/demo"
    drawn.mkdir(parents=True)
    for world in WORLDS:
        make_data.make(world, drawn, images=90, seed=0, workers=0)
    for name in ("clevr_4_10k_v1", "cards", "genecis"):
        (data / name).symlink_to(drawn / name)
    (data / "real_decks").symlink_to(drawn)
    write_suite(data)
    shutil.copytree(drawn / "garments", data / "deepfashion")
    meta = json.loads((drawn / "garments/meta.json").read_text())
    (data / "deepfashion/meta.json").write_text(json.dumps({"DeepFashion": meta["Garments"]}))
    labels = json.loads((drawn / "clevr_4_10k_v1/clevr_4_annots.json").read_text())
    pictures = drawn / "clevr_4_10k_v1/images"
    for image, classes in list(labels.items())[:20]:
        place = data / "my_pictures/mood" / classes["color"]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / f"{image}.png", place)
    (folder / "pictures").mkdir()
    for number, image in enumerate([*list(labels)[:30], *list(labels)[:1]]):  # the last: a copy
        name = f"{'ab'[number]}.jpg" if number < 2 else f"{number}.png"
        shutil.copy(pictures / f"{image}.png", folder / "pictures" / name)
    shutil.make_archive(str(folder / "holiday"), "zip", folder / "pictures")
    (folder / "few.csv").write_text("file,label\na.jpg,calm\nb.jpg,tense\n")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    (folder / "my_bases").mkdir()
    shutil.copy(REPOSITORY / "configs/bases/clevr4_color.yaml", folder / "my_bases/mood.yaml")
    (folder / "mood.txt").write_text("red\nblue\ngreen\n")
    (folder / "my_module.py").write_text(python_blocks("crl/README.md")[0])
    genecis = load(TASKS[:2], drawn / "genecis")
    np.savez(folder / "mine.npz", **features(genecis.ids, genecis.conditions))
    return folder


@pytest.fixture(autouse=True)
def there(workspace, monkeypatch, server) -> None:
    """In that folder, and with an LLM."""
    monkeypatch.chdir(workspace)
    monkeypatch.syspath_prepend(workspace)
    monkeypatch.setenv("HOME", str(workspace))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    server.replies = [lambda request: gives("red", "blue", "many", "few", "dark", "bright")]


def runnable() -> list[str]:
    """Commands of the scripts in `SMALL`, in their order, each once, none with a placeholder."""
    commands = {shlex.join(shlex.split(command)) for _, command in PUBLISHED}
    scripts = {command: command.split()[0] for command in commands}
    commands = {c for c in commands if not any(part in c for part in LEFT_OUT)}
    commands = {c for c in commands if scripts[c] in SMALL and c not in CONFIGS}
    return sorted(commands, key=lambda command: (list(SMALL).index(scripts[command]), command))


def unchanged(image, **_) -> SimpleNamespace:
    """In place of a text-to-image model."""
    return SimpleNamespace(images=[image])


def test_published_commands_run(run, monkeypatch, server):
    monkeypatch.setattr(generate_images, "load_pipeline", lambda config: unchanged)
    for command in runnable():
        script, *arguments = shlex.split(command.replace(OLLAMA, server.url))
        arguments = [str(Path(a).expanduser()) if a[0] == "~" else a for a in arguments]
        replaced = {"features=": ("vlm=demo", "images=null"), "vlm=my_module": ("vlm=demo",)}
        idle = [key for what, keys in replaced.items() if what in command for key in keys]
        small = [key for key in SMALL[script].split() if key not in idle]
        config = arguments[arguments.index("--config") + 1] if "--config" in arguments else ""
        module = script.removesuffix(".py").removeprefix("scripts/").replace("/", ".")
        main = importlib.import_module(module).main
        code, _, errors = run(main, *arguments, *small, *INSTEAD.get(config, []))
        assert code == 0, f"{command}: {errors}"


def test_the_examples_in_python(monkeypatch):
    method, own = python_blocks("README.md")
    found: dict = {}
    exec(method.replace('"clip"', '"demo"'), found)
    assert found["r"].shape == (31, len(found["basis"].texts)) and len(found["clusters"]) == 31
    exec(own.replace('vlm="clip"', 'vlm="demo"'), found)
    assert len(found["mood"].clusters(5)) == 31
    assert found["mood"].nearest("a.jpg", 10)["file"][0] == "30.png"  # its copy
    assert Path("report.html").stat().st_size > 1_000_000
    _, told, given, task, _ = python_blocks("crl/README.md")  # the last needs FAISS
    monkeypatch.setattr(instructed, "load_instructed", lambda *name, **how: ToldModel())
    found["files"] = sorted(Path("pictures").glob("*.png"))
    exec(told, found)
    assert found["x"].shape == (29, 2, 3)
    exec(given, {})
    exec(task, found)
    assert found["nearest"].shape == (90,) and found["nearest"][0] == 0
