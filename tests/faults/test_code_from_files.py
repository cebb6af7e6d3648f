"""A folder that someone sends names its VLM; code that it names, and may hold, never runs.

Each folder is made by its own script with a VLM of one's own, `evil:Evil`, which may run then: the
person gave it. Afterwards only the folder names it.
"""

import json
import sys

import pytest
from checkpoints import save_clip
from clothes import bases_of, write_clothes, write_noise
from mining_files import write_triplets
from toy_vlm import ToyVLM, make_images

from crl.embed import embed_images
from crl.explore.listing import write_listing
from crl.run.errors import UserError
from crl.vlm import find_vlm, load_vlm
from fashion_retrieval import evaluate as fashion
from fashion_retrieval import train_backbone, train_mlp, train_rival
from scripts import explore
from similarity_retrieval import evaluate as genecis
from similarity_retrieval import train_combiner

EVIL = """
from toy_vlm import ToyVLM
open({ran!r}, "w").close()
def Evil(device, precision):
    return ToyVLM()
"""
NAME = "evil:Evil"


class Sent:
    """A folder with evil.py, in which commands start."""

    def __init__(self, folder, run):
        self.folder, self.ran, self._run = folder, folder / "ran", run
        (folder / "evil.py").write_text(EVIL.format(ran=str(self.ran)))

    def run(self, main, *arguments, **settings):
        """Exit code and errors, and whether evil.py ran meanwhile."""
        sys.modules.pop("evil", None)
        self.ran.unlink(missing_ok=True)
        given = [f"{key}={value}" for key, value in settings.items()]
        code, _, errors = self._run(main, *arguments, *given)
        return code, errors, self.ran.exists()


@pytest.fixture
def sent(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    yield Sent(tmp_path, run)
    sys.modules.pop("evil", None)


def check_refused(outcome):
    code, errors, ran = outcome
    assert code == 2 and len(errors.splitlines()) == 1 and not ran, errors
    assert f"the VLM '{NAME}' comes from a file, and code from a file is never run" in errors


def check_goes(outcome):
    code, errors, ran = outcome
    assert code == 0 and ran, errors


def test_the_folder_of_a_combiner(sent):
    keys = {**write_triplets(sent.folder, count=20), "vlm": NAME, "epochs": 1}
    check_goes(sent.run(train_combiner.main, **keys))
    root = sent.folder / "genecis"
    for number, path in enumerate(make_images(root / "coco/val2017", 4)):
        path.rename(path.with_name(f"{number:012d}.jpg"))
    images = [{"val_image_id": number} for number in range(4)]
    template = {"reference": images[0], "target": images[1], "gallery": images[2:]}
    (root / "focus_object.json").write_text(json.dumps([template | {"condition": "cat"}]))
    keys = {"root": root, "tasks": "focus_object", "trained": "[outputs/combiner/run]"}
    keys |= {"texts": 5, "figures": "no", "device": "cpu"}
    check_refused(sent.run(genecis.main, vlm=save_clip(sent.folder / "clip"), **keys))
    check_goes(sent.run(genecis.main, vlm=NAME, **keys))  # the person names it too


@pytest.fixture
def clothes(sent):
    """Keys of all of fashion_retrieval's scripts."""
    keys = {**write_clothes(sent.folder), "outputs": "outputs"}
    write_noise(sent.folder)
    return keys


SMALL = {"epochs": 1, "triplets": 8, "batch_size": 4}


def test_the_folder_of_heads(sent, clothes):
    bases = json.dumps(bases_of(sent.folder))
    check_goes(sent.run(train_mlp.main, vlm=NAME, bases=bases, **SMALL, **clothes))
    heads = next(sent.folder.glob("outputs/*/*/results.json")).parent
    check_refused(sent.run(train_backbone.main, heads=heads, **SMALL, **clothes))
    keys = {**clothes, "bases": bases, "trained": f"[{heads}]", "figures": "no"}
    check_refused(sent.run(fashion.main, vlm=save_clip(sent.folder / "clip"), **keys))
    check_goes(sent.run(fashion.main, vlm=NAME, **keys))


def test_the_folder_of_a_rival(sent, clothes):
    clip = save_clip(sent.folder / "clip")
    code, errors, _ = sent.run(train_rival.main, method="triplet", tower=clip, **SMALL, **clothes)
    assert code == 0, errors
    file = next(sent.folder.glob("outputs/*/*/results.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "tower": NAME}))
    keys = {**clothes, "bases": json.dumps(bases_of(sent.folder)), "vlm": clip}
    code, errors, ran = sent.run(fashion.main, trained=f"[{file.parent}]", figures="no", **keys)
    assert (code, ran) == (2, False) and f"'{NAME}' is none" in errors


def test_a_folder_of_embeddings(sent):
    files = make_images(sent.folder / "images", 4)
    embedded = embed_images(ToyVLM(), files, sent.folder / "parts")
    about = {"fingerprint": "toy-1", "vlm": NAME}
    names = list(map(str, files))
    write_listing(sent.folder / "parts/images.parquet", names, embedded.digests.tolist(), about)
    arguments = ["parts", "--criterion", "clevr4_color", "--out", "page"]
    check_refused(sent.run(explore.main, *arguments))
    check_goes(sent.run(explore.main, *arguments, "--vlm", NAME))


@pytest.mark.parametrize("name", ["evil:Evil", "sent.evil:Evil", "sent:Evil"])
def test_no_name_from_a_file_is_imported(sent, name):
    for load in (find_vlm, load_vlm):
        with pytest.raises(UserError, match=f"'{name}' comes from a file, and code from a file is"):
            load(name, from_file=True)
    assert not sent.ran.exists()


def test_a_data_folder_below_the_working_directory_is_no_package(sent):
    (sent.folder / "data").mkdir()
    (sent.folder / "evil.py").rename(sent.folder / "data/evil.py")
    with pytest.raises(UserError, match="data is a folder without __init__"):
        load_vlm("data.evil:Evil")
    assert not sent.ran.exists()
