"""Multi-MaP: RIVALS' case worked by hand, what a step changes, the towers, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints import save_align, save_clip, save_custom_text
from disturbed import finished, interrupted
from PIL import Image
from safetensors.torch import load_file
from toy_vlm import make_images

from classification_clustering import train_rival
from classification_clustering.datasets import load
from classification_clustering.rivals.config import RivalConfig
from classification_clustering.rivals.multi_map import MultiMaP, proxy_loss, token_means
from classification_clustering.train_rival import RivalTrainer
from crl.backends.pseudo_words import PseudoWords
from crl.run.errors import UserError
from crl.vlm import load_vlm

CPU = torch.device("cpu")


@pytest.fixture
def keys(tmp_path):
    """11 pictures, of which the demo VLM (D = Dt) makes three blocks."""
    make_images(tmp_path / "color" / "blue", 5)
    make_images(tmp_path / "color" / "red", 6, first=5)
    return {
        "method": "multi_map", "data": "folder", "root": tmp_path, "criteria": ["color"],
        "references": {"color": ["red", "dark blue", "green"]}, "vlm": "demo", "device": "cpu",
        "outputs": tmp_path / "outputs", "cache": tmp_path / "cache", "batch_size": 4, "epochs": 3,
        "lr": 0.05,
    }  # fmt: skip


def method(keys, **more):
    config = RivalConfig(**{**keys, **more})
    return MultiMaP(config, load("folder", config.root, "color"), CPU)


def train(keys, **more):
    return finished(RivalTrainer(RivalConfig(**{**keys, **more}), "cpu"))


def tokens(folder):
    return load_file(folder / "rival.safetensors")["weight"]


def test_the_loss_worked_by_hand():
    one = torch.tensor
    sentence, image, token = one([[1.0, 1.0]]), one([[0.6, 0.8]]), one([[0.5, -0.5]])
    terms = proxy_loss(sentence, image, token, one([0.1, 0.3]), one([[0.5, 0.1]]))
    assert terms.tolist() == pytest.approx([0.010051, 0.4, 0.18], abs=1e-6)
    assert (terms @ one([1, 0.2, 0.3])).item() == pytest.approx(0.144051, abs=1e-6)


def test_it_starts_at_the_most_similar_words_embedding(keys):
    data, vlm = method(keys), load_vlm("demo", "cpu")
    pixels = [vlm.preprocess(Image.open(path)) for path in data.data.paths]
    image = vlm.encode_images(torch.stack(pixels))
    text = vlm.encode_texts(keys["references"]["color"])
    for row, token in enumerate(data.tokens.weight):
        word = max(text, key=lambda one: torch.cosine_similarity(one, image[row], dim=0))
        assert torch.allclose(token, word, atol=1e-4)
    assert torch.allclose(data.criterion, vlm.encode_texts(["color"])[0], atol=1e-4)
    assert torch.allclose(data.image, F.normalize(image, dim=1), atol=1e-5)
    assert len(data.reference.unique(dim=0)) > 1


def test_the_loss_of_a_block_and_its_gradient(keys):
    data = method(keys, prompt="a {criterion} of $", criterion_word="hue")
    rows = torch.tensor([2, 5, 7])
    loss = data.loss(rows, 0)
    loss.backward()
    moved = data.tokens.weight.grad.norm(dim=1) > 0
    assert moved.nonzero().flatten().tolist() == rows.tolist()
    assert all(parameter.grad is None for parameter in data.words.vlm.model.parameters())
    w, expected = data.tokens.weight.detach()[rows], 0.0
    with torch.no_grad():
        sentence = data.words.encode(["a hue of $"] * 3, w)
        hue = data.words.vlm.encode_texts(["hue"])[0]
    for b in range(3):
        cosine = sentence[b] @ data.image[rows[b]] / sentence[b].norm()
        expected += (1 - cosine + 0.2 * (w[b] - hue).square().mean()).item() / 3
    assert loss.item() == pytest.approx(expected, abs=1e-4)  # w is still its reference


@pytest.mark.parametrize("start", ["embedding", "token"])
def test_without_the_other_terms_sentences_come_nearer_to_images(keys, start):
    folder, results = train(keys, alpha=0, beta=0, epochs=8, start=start, validate_every=4)
    assert results["losses"][-1] < results["losses"][0] - 0.01
    first, last = results["validation"]
    assert last["cosine"] > first["cosine"] and last["movement"] > first["movement"] > 0
    start_of, end = method(keys, start=start).reference, tokens(folder)
    assert last["movement"] == pytest.approx(
        100 * ((end - start_of).norm(dim=1) / start_of.norm(dim=1)).mean().item(), rel=1e-4
    )
    features = load_file(folder / "clusters.safetensors")["features"]
    data = method(keys)
    with torch.no_grad():
        expected = F.normalize(data.words.encode(["objects with color of $"] * 11, end), dim=1)
    assert torch.allclose(features, expected, atol=1e-6)
    cosine = (expected * data.image).sum(dim=1).mean().item()
    assert last["cosine"] == pytest.approx(cosine, abs=1e-5)
    assert results["supervision"].startswith("an LLM's words") and results["parameters"] == 11 * 128


def test_another_width_than_a_tokens_starts_from_token_embeddings(keys, tmp_path):
    data = method(keys, vlm=str(save_clip(tmp_path / "clip")))
    assert data.tokens.weight.shape == (11, 32) and data.clusters().shape == (11, 16)
    table, ids = data.words.embedding.weight, data.words.vlm.token_ids(["dark blue"])[0]
    expected = (table[ids[1]] + table[ids[2]]) / 2  # after the start
    assert torch.allclose(token_means(data.words, ["dark blue"])[0], expected)
    words = token_means(data.words, keys["references"]["color"])
    assert all((row == words).all(dim=1).any() for row in data.reference)


@pytest.mark.parametrize("custom", [False, True])
def test_the_released_tower_lacks_positions_and_a_norm(keys, tmp_path, custom):
    """Against the tower written out, of both classes of open_clip."""
    folder = save_custom_text(tmp_path) if custom else save_clip(tmp_path)
    clip, released = (method(keys, vlm=str(folder), text_tower=t) for t in ("clip", "released"))
    w = torch.randn(2, 32)
    ids = released.words.vlm.token_ids(["objects with color of a"] * 2)
    model = released.words.vlm.model
    tower = model.text if custom else model
    with torch.no_grad():
        x, end = tower.token_embedding(ids), ids.argmax(dim=1)
        x[torch.arange(2), end - 1] = w
        x = tower.transformer(x, attn_mask=tower.attn_mask)[torch.arange(2), end]
        assert torch.allclose(released.sentences(w), x @ tower.text_projection, atol=1e-4)
        assert not torch.allclose(released.sentences(w), clip.sentences(w), atol=1e-2)
        plain = PseudoWords(released.words.vlm).encode(["objects with color of $"] * 2, w)
        assert torch.equal(clip.sentences(w), plain)  # nothing is left of the other tower


def test_other_towers_have_no_released_form(keys, tmp_path):
    folder = str(save_align(tmp_path / "align"))
    assert method(keys, vlm=folder).clusters().shape == (11, 64)
    with pytest.raises(UserError, match="no text tower of open_clip, which text_tower=released"):
        method(keys, vlm=folder, text_tower="released")


def test_which_tokens_decay(keys):
    rows, weights = torch.tensor([0, 1, 2, 3]), {}
    for decay in ("block", "all"):
        data = method(keys, weight_decay=0.5, decay=decay)
        optimizer = data.optimizer(0)
        data.loss(rows, 0).backward()
        gradient = data.tokens.weight.grad.clone()
        optimizer.step()
        weights[decay] = data.tokens.weight.detach()
        if decay == "block":
            plain = method(keys)
            plain.loss(rows, 0).backward()
            expected = plain.tokens.weight.grad[:4] + 0.5 * data.reference[:4]
            assert torch.allclose(gradient[:4], expected, atol=1e-5)
            assert torch.equal(weights["block"][4:], data.reference[4:])
        else:  # the first step of Adagrad has the size lr, whatever the gradient
            others = data.reference[4:]
            assert torch.allclose(weights["all"][4:], others - 0.05 * others.sign(), atol=1e-5)
    assert torch.allclose(weights["all"][:4], weights["block"][:4], atol=1e-5)


def test_blocks_stay_and_their_order_changes(keys):
    data = method(keys)
    orders = [data.batches(0, np.random.default_rng(seed)) for seed in range(6)]
    for blocks in orders:
        assert sorted(map(list, blocks)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert len({tuple(block[0] for block in blocks) for blocks in orders}) > 2


def test_a_killed_training_gives_the_same_tokens(keys):
    keys |= {"checkpoint_every": 2, "weight_decay": 0.01}
    whole, _ = train(keys, name="whole")
    with interrupted(MultiMaP, "loss", 6):  # in the second epoch
        train(keys, name="parts")
    parts, _ = train(keys, name="parts")
    assert torch.equal(tokens(whole), tokens(parts))


def test_words_of_a_basis_and_the_prompt_itself(keys):
    def words(**more):
        return train_rival.METHODS["multi_map"].settings(RivalConfig(**{**keys, **more}), CPU)

    basis = words(references={"color": "clevr4_color"})
    assert basis["references"] != words()["references"]
    data = method(keys, references={"color": "prompt"})
    assert len(data.reference.unique(dim=0)) == 1
    expected = data.words.vlm.encode_texts(["objects with color of"])[0]
    assert torch.allclose(data.reference[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"criterion_word": '" "'}, "criterion_word: String should have at least 1 character"),
        ({"criteria": "[]"}, "criteria: "),
        ({"criteria": "[color, color]"}, "multi_map trains for one criterion; give criteria="),
        ({"references": "{color: []}"}, "references"),
        ({"references": "{colour: [red]}"}, "no words for 'color'; did you mean 'colour'?"),
        ({"references": "{}"}, "unknown text basis 'folder_color'"),
        ({"prompt": "objects of {criterion}"}, r"'objects of color' has no $, the place of"),
        ({"prompt": "red " * 20 + "$"}, "is cut before its $ (demo reads 16 tokens)"),
        ({"prompt": "a $ " + "red " * 20}, "is cut (demo reads 16 tokens); shorten it"),
        ({"vlm": "color_vlm:ColorVLM"}, "colors takes no pseudo-words; use a VLM of open_clip or"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(keys, refusal, more, message):
    settings = {**keys, "criteria": "color", "references": "{color: [red, blue]}", **more}
    line = refusal(train_rival.main, **settings)
    assert message in line, line
    assert not list(keys["outputs"].glob("*/*/*"))
