"""What few_shot.py and clustering.py are given."""

import numpy as np
import pytest
from toy_vlm import ToyVLM, direct, make_images
from worlds import clevr4

from classification_clustering import clustering, datasets
from classification_clustering.config import EvaluateConfig
from classification_clustering.datasets import Labelled
from classification_clustering.embedded import embedded
from crl.basis import TextBasis
from crl.embed import embed_texts
from crl.projection import l2
from crl.run.errors import UserError
from crl.vlm import load_vlm

TEXTS = len(TextBasis.load("clevr4_color").texts)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    clevr4.write(folder, images=120, seed=12, workers=2)
    return folder


def test_another_vlm_prompt_replaces_that_of_the_basis(root):
    settings = {"data": "clevr4", "root": root, "criteria": ["color"], "vlm": ["demo"], "texts": 3}
    prompt = "art with the {criterion} of {text}"
    [own] = embedded(EvaluateConfig(**settings))
    [other] = embedded(EvaluateConfig(**settings, vlm_prompt=prompt))
    prompts = [f"art with the color of {t}" for t in TextBasis.load("clevr4_color", 3).texts]
    expected = embed_texts(load_vlm("demo"), prompts, cache=None)
    np.testing.assert_allclose(other.text, expected, atol=1e-5)
    assert not np.allclose(own.text, expected, atol=1e-3)
    assert own.about_basis["basis_digest"] != other.about_basis["basis_digest"]
    assert other.about_basis["basis"] == f"clevr4_color in '{prompt}'"


def test_a_data_set_of_ones_own_is_one_entry(tmp_path, monkeypatch):
    paths = make_images(tmp_path / "mine", 6)
    made = Labelled(paths, np.array([0, 1, 0, 1, 1, 0]), ["calm", "wild"])
    monkeypatch.setitem(datasets.LOADERS, "mine", lambda root, criterion: made)
    monkeypatch.setattr("classification_clustering.embedded.load_vlm", lambda *_: ToyVLM())
    config = {"data": "mine", "criteria": "mood", "bases": {"mood": "clevr4_color"}, "vlm": "toy"}
    [data] = embedded(EvaluateConfig(**config))
    assert np.array_equal(data.image, l2(direct(ToyVLM(), paths)))
    assert data.data.labels.tolist() == [0, 1, 0, 1, 1, 0] and data.data.paths == paths
    assert data.about_basis["basis"] == "clevr4_color" and data.about_basis["texts"] == TEXTS
    assert data.class_text.shape == (2, 5)
    with pytest.raises(UserError, match="class calm has 3 images; it needs 4 or more"):
        list(embedded(EvaluateConfig(**config), at_least=4))


def test_an_unreadable_image_is_skipped_when_asked(tmp_path, run):
    clevr4.write(tmp_path / "data", images=120, seed=12, workers=2)
    broken = tmp_path / "data/clevr_4_10k_v1/images/CLEVR_4_000007.png"
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = ["data=clevr4", "criteria=color", "vlm=demo", "seeds=1", "figures=false"]
    code, printed, errors = run(clustering.main, *arguments, "unreadable=skip")
    assert "note: 1 of 120 images could not be read" in errors
    assert code == 0 and "1 unreadable image(s) left out" in printed
    assert '"images": 119' in (tmp_path / "outputs/clustering/run/results.json").read_text()
