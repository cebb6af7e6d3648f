"""CIG: its fusion by hand, its rows in evaluate.py, the names of its images, mistakes."""

import json

import numpy as np
import pytest
import torch
from checkpoints import save_rival
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy_vlm import make_images

from similarity_retrieval.datasets import TASKS, load
from similarity_retrieval.rivals.cig import file_name, file_names, fused

CONDITIONS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)  # no half characters
IDS = st.sampled_from(["1", "11", "1:2,3,4,5", "11:2,3,4,5.5"])


@pytest.mark.parametrize(
    ("weight", "query"),
    [(0.5, (0.316228, 0.948683)), (0.85, (0.523525, 0.852011)), (1, (0.6, 0.8)), (0, (0, 1))],
)
def test_the_fusion(weight, query):
    fusion = fused(np.array([[3.0, 4]]), np.array([[0.0, 2]]), weight)
    assert fusion[0] == pytest.approx(query, abs=1e-6)


@given(st.lists(st.tuples(IDS, CONDITIONS), unique=True))
def test_no_two_pairs_share_a_name(pairs):
    names = {file_name(*pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert all(name.isascii() and not set(name) & set('/\\:*?"<>| \0\n') for name in names)


@pytest.fixture
def generated(genecis, tmp_path):
    """A folder with a picture for each pair of the four tasks, and a rival."""
    save_rival("searle", tmp_path / "large.pt")
    data = load(TASKS, genecis)
    names = {name for t in data.tasks.values() for name in file_names(data, t)}
    for name, picture in zip(sorted(names), make_images(tmp_path / "made", 48, 99), strict=False):
        picture.rename(picture.with_name(name))
    for spare in (tmp_path / "made").glob("???.png"):
        spare.unlink()
    return tmp_path / "made"


def test_rows_are_those_of_a_slow_recomputation(
    tmp_path, genecis, generated, words, measure, row_of, clip_folder
):
    rivals, network = f"rivals=[searle:{tmp_path}/large.pt]", save_rival("searle", tmp_path / "x")
    printed = measure(rivals, f"generated={generated}", "reference_weight=0.3")
    ranks = []

    def embedded(file):
        return words.vlm.encode_images(words.vlm.preprocess(Image.open(file))[None])

    for template in json.loads((genecis / "change_object.json").read_text()):
        images = template["reference"], template["target"], *template["gallery"]
        numbers = [image["val_image_id"] for image in images]
        reference, *gallery = (embedded(genecis / f"coco/val2017/{n:012d}.jpg") for n in numbers)
        made = embedded(generated / f"{numbers[0]}_{template['condition']}.png")
        text = [f"a photo of $ that {template['condition']}"]
        with torch.no_grad():
            one, other = (words.encode(text, network(x)) for x in (reference, made))
        query = 0.3 * one / one.norm() + 0.7 * other / other.norm()
        target, *others = (torch.cosine_similarity(query, x).item() for x in gallery)
        ranks.append(sum(score > target for score in others))
    row = row_of("CIG (ours, made) on searle, that", "change_object", str(clip_folder))
    expected = {f"R@{k}": 100 * np.mean(np.array(ranks) < k) for k in (1, 2, 3)}
    assert row["scores"] == pytest.approx(expected)
    parts = "0.3 of the reference's query, 0.7 of that of an image in made"
    assert f"that: {parts}; ours, since CIG's training is not published" in printed


def test_weight_1_is_the_rival_itself_on_all_tasks(
    tmp_path, genecis, generated, measure, row_of, clip_folder
):
    rivals = f"rivals=[searle:{tmp_path}/large.pt]"
    tasks = f"tasks=[{', '.join(TASKS)}]"
    measure(rivals, tasks, f"generated={generated}", "reference_weight=1")
    for task in TASKS:
        rows = [row_of(method, task, str(clip_folder)) for method in
                ("searle, that", "CIG (ours, made) on searle, that")]  # fmt: skip
        assert rows[0]["scores"] == rows[1]["scores"]
        ranks = np.load(genecis.parent / "out/similarity_retrieval/run" / rows[0]["ranks"])
        for what in ("better", "tied"):
            alone, fusion = (ranks[f"{row['about']['method']}/{what}"] for row in rows)
            assert (alone == fusion).all()


def test_mistakes(tmp_path, generated, refused):
    rivals, folder = f"rivals=[searle:{tmp_path}/large.pt]", f"generated={generated}"
    assert refused(folder).endswith("generated needs rivals, whose queries take part in CIG's")
    assert "reference_weight: must be" in refused(rivals, folder, "reference_weight=1.1")
    lost = sorted(generated.glob("*_dog.png"))[:2]
    for file in lost:
        file.unlink()
    error = refused(rivals, folder, f"tasks=[{', '.join(TASKS)}]")
    assert f"generated: {generated} lacks 2 of " in error and lost[0].name in error
    assert error.endswith("make them with generate_images.py")
