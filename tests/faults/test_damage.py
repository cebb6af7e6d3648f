"""Damage is noticed: bits of checkpoints and of cached embeddings, and files that are not ours."""

import io
import json
import random
import stat
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from toy_vlm import ToyVLM, direct, make_images

from crl.backends.weights import save_tensors
from crl.embed import embed_images, embed_texts
from crl.run import loop
from crl.run.errors import UserError
from crl.run.results import read_cells
from crl.run.training import Trainer, TrainingConfig


class Line(Trainer):
    """One weight, one step per epoch."""

    steps, metric = 1, "score"

    def __init__(self, outputs, epochs=1):
        self.config = TrainingConfig(name="line", outputs=outputs, epochs=epochs)
        self.folder = outputs / "line"
        self.weights, self.settings = self.folder / "line.safetensors", {"seed": 0}

    def prepare(self):
        torch.manual_seed(0)
        self.line, self.record = nn.Linear(4, 4), {}
        self.models = {"line": self.line}
        self.optimizer = torch.optim.Adam(self.line.parameters())

    def batches(self, epoch, done):
        return [torch.ones(2, 4)][done:]

    def step(self, batch):
        loss = self.line(batch).square().mean()
        loss.backward()
        return loss.item()

    def validate(self):
        return {"score": 1.0}

    def keep(self):
        save_tensors(self.weights, self.line)


def plain(state: dict) -> str:
    return json.dumps(state, default=torch.Tensor.tolist, sort_keys=True)


def test_a_flipped_bit_of_a_checkpoint_is_noticed_or_changes_nothing(tmp_path):
    Line(tmp_path).run()
    file, rng = tmp_path / "line/state.pt", random.Random(0)
    whole = file.read_bytes()
    good = plain(torch.load(io.BytesIO(whole), weights_only=True))
    noticed = 0
    for _ in range(300):
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(content)
        try:
            assert plain(Line(tmp_path)._read_state()) == good
        except UserError as error:
            assert "state.pt is damaged; remove it to start again" in str(error)
            noticed += 1
    assert noticed > 150  # the others are in padding and in names of the archive


@pytest.mark.parametrize("part", ["models", "optimizer", "settings", "progress"])
def test_a_checkpoint_without_a_part(tmp_path, part):
    Line(tmp_path).run()
    file = tmp_path / "line/state.pt"
    state = torch.load(file, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != part}, file)
    with pytest.raises(UserError, match=r"state\.pt is damaged"):
        Line(tmp_path, epochs=2).run()


def test_a_checkpoint_of_other_shapes(tmp_path):
    Line(tmp_path).run()
    file = tmp_path / "line/state.pt"
    state = torch.load(file, weights_only=True)
    state["models"]["line"]["weight"] = torch.ones(3, 3)
    torch.save(state, file)
    with pytest.raises(UserError, match=r"state\.pt is damaged"):
        Line(tmp_path, epochs=2).run()


def test_a_finished_training_without_its_weights_is_not_called_finished(tmp_path, capsys):
    Line(tmp_path).run()
    (tmp_path / "line/line.safetensors").unlink()
    with pytest.raises(UserError, match=r"finished training but line\.safetensors is gone"):
        Line(tmp_path).run()
    assert "nothing to do" not in capsys.readouterr().out


def test_flipped_bits_of_cached_embeddings_change_no_row(tmp_path):
    paths, cache, rng = make_images(tmp_path / "images", 6), tmp_path / "cache", random.Random(0)
    embed_images(ToyVLM(), paths, cache)
    (shard,) = cache.rglob("*.safetensors")
    whole = shard.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        content[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        for file in cache.rglob("*.*"):
            file.unlink()
        shard.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = embed_images(ToyVLM(), paths, cache).image
        assert np.array_equal(found, direct(ToyVLM(), paths))


def test_a_flipped_bit_of_cached_texts(tmp_path):
    texts, cache = ["red", "green"], tmp_path / "cache"
    good = embed_texts(ToyVLM(), texts, cache)
    (shard,) = cache.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1
    shard.write_bytes(content)
    with pytest.warns(UserWarning, match="its checksum is wrong"):
        assert np.array_equal(embed_texts(ToyVLM(), texts, cache), good)


def test_a_complete_cache_is_used_where_nothing_can_be_written(tmp_path, monkeypatch):
    paths, cache = make_images(tmp_path / "images", 3), tmp_path / "cache"
    good = embed_images(ToyVLM(), paths, cache).image
    folders = [cache, *(folder for folder in cache.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr(loop, "alone_in", None)  # it writes nothing there either
    monkeypatch.setattr("crl.run.cache.os.access", lambda *_: False)  # root may write anywhere
    vlm = ToyVLM()
    try:
        assert np.array_equal(embed_images(vlm, paths, cache).image, good) and vlm.images == 0
    finally:
        for folder in folders:
            folder.chmod(0o755)


@pytest.mark.parametrize(
    "content",
    ["", "null", "7", "[]", "{}", '{"cells": 7}', '{"cells": [7]}', '{"cells": [{}]}', "[" * 9999],
)
def test_results_that_are_not_ours(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"is not a results file, or is damaged; remove it and run"):
        read_cells(tmp_path / "results.json")
