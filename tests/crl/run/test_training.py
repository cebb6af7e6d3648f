"""The training loop: what it writes and when, resuming after a kill at any write, refusals."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from crl.backends.weights import save_tensors
from crl.run import training
from crl.run.errors import UserError
from crl.run.files import OURS
from crl.run.training import Trainer, TrainingConfig

STEPS, EPOCHS = 5, 3


class Config(TrainingConfig):
    epochs: int = EPOCHS
    lr: float = 0.1


class Line(Trainer):
    """Fits y = 2 x by gradient descent; `scores` are its validations, epoch by epoch."""

    steps, metric = STEPS, "score"

    def __init__(self, folder, scores=(1.0, 3.0, 2.0), held_out=True, **settings):
        self.config = Config(name=folder.name, outputs=folder.parent, **settings)
        self.folder, self.weights = folder, folder / "line.safetensors"
        self.settings = {"lr": self.config.lr, "seed": self.config.seed}
        self.scores, self.held_out, self.calls = scores, held_out, []

    def prepare(self):
        torch.manual_seed(self.config.seed)
        self.line = nn.Linear(1, 1)
        self.models = {"line": self.line}
        self.optimizer = torch.optim.Adam(self.line.parameters(), lr=self.config.lr)
        self.record = {"method": "line"}
        self.calls.append("prepare")

    def batches(self, epoch, done):
        for number in range(done, STEPS):
            rng = np.random.default_rng([self.config.seed, epoch, number])
            yield torch.from_numpy(rng.normal(size=(4, 1)).astype(np.float32))

    def step(self, batch):
        loss = (self.line(batch) - 2 * batch).square().mean()
        loss.backward()
        self.calls.append("step")
        return loss.item()

    def validate(self):
        if not self.held_out:
            return {}
        return {"score": self.scores[len(self.progress.losses) - 1]}

    def keep(self):
        save_tensors(self.weights, self.line)

    def rate(self, step):
        return self.config.lr / (1 + step // STEPS)


def contents(folder: Path) -> dict:
    """The files, without what differs between two uninterrupted runs: seconds, bytes of zip."""
    results = json.loads((folder / "results.json").read_text())
    assert results["parameters"] == 2 and results.pop("preparation_seconds") >= 0
    del results["seconds"], results["config"]["outputs"], results["config"]["checkpoint_every"]
    content = (folder / "state.pt").read_bytes()[16:]  # a checksum, then torch's format
    state = torch.load(io.BytesIO(content), weights_only=True)
    del state["progress"]["seconds"]
    return {
        "files": sorted(file.name for file in folder.iterdir()),
        "results": results,
        "weights": (folder / "line.safetensors").read_bytes(),
        "state": json.dumps(state, default=torch.Tensor.tolist),
    }


def test_an_undisturbed_training(tmp_path, capsys):
    trainer = Line(tmp_path / "out/line")
    trainer.run()
    found = contents(trainer.folder)
    assert found["files"] == [OURS, "config.yaml", "line.safetensors", "results.json", "state.pt"]
    results = found["results"]
    assert results["method"] == "line" and results["step"] == STEPS * EPOCHS
    assert len(results["losses"]) == EPOCHS and results["losses"][2] < results["losses"][0]
    assert [v["epoch"] for v in results["validation"]] == [1, 2, 3] and results["unfinished"] == []
    assert results["best"] == {"epoch": 2, "score": 3.0}
    assert yaml.safe_load((trainer.folder / "config.yaml").read_text())["epochs"] == EPOCHS
    assert "epoch 2/3: loss " in (shown := capsys.readouterr().out)
    assert "validation score 3.00" in shown and f"weights and results: {trainer.folder}" in shown

    again = Line(trainer.folder)  # finished: nothing is loaded
    again.run()
    assert again.calls == [] and "finished; nothing to do" in capsys.readouterr().out
    assert contents(trainer.folder) == found


def test_weights_are_those_of_the_best_validation(tmp_path):
    best = Line(tmp_path / "two", epochs=2, scores=(1.0, 3.0))
    best.run()
    longer = Line(tmp_path / "three", scores=(1.0, 3.0, 3.0))  # of equals the first
    longer.run()
    assert longer.weights.read_bytes() == best.weights.read_bytes()
    unheld = Line(tmp_path / "unheld", held_out=False)  # without validation data: the last
    unheld.run()
    assert unheld.weights.read_bytes() != best.weights.read_bytes()
    assert contents(unheld.folder)["results"]["best"] == {"epoch": 3}


def test_learning_rate_follows_the_step(tmp_path):
    trainer, rates = Line(tmp_path / "line"), []
    step = trainer.step
    trainer.step = lambda batch: (
        rates.append(trainer.optimizer.param_groups[0]["lr"]) or step(batch)
    )
    trainer.run()
    assert rates == pytest.approx([0.1] * 5 + [0.05] * 5 + [0.1 / 3] * 5)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("checkpoint_every", [2, 100])
def test_killed_around_any_write_it_ends_undisturbed(tmp_path, monkeypatch, checkpoint_every):
    Line(tmp_path / "plain", checkpoint_every=checkpoint_every).run()
    expected = contents(tmp_path / "plain")
    expected["results"]["config"]["name"] = "killed"
    rename, kills = training.atomic_path.__globals__["os"].replace, 0
    for moment in range(1000):
        folder, calls = tmp_path / f"at-{moment}" / "killed", []

        def replace(source, target, calls=calls, moment=moment):
            calls.append(target)
            if len(calls) == moment // 2 + 1 and moment % 2 == 0:
                raise Killed
            rename(source, target)
            if len(calls) == moment // 2 + 1:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr("os.replace", replace)
            try:
                Line(folder, checkpoint_every=checkpoint_every).run()
                break  # there is no such write any more
            except Killed:
                kills += 1
        Line(folder, checkpoint_every=checkpoint_every).run()
        assert contents(folder) == expected
    writes = 1 + 2 + 3 + 3 + (2 * EPOCHS if checkpoint_every == 2 else 0)  # config, weights, ...
    assert kills == 2 * writes


def test_a_prolonged_training_ends_like_one_that_was_planned_so(tmp_path):
    Line(tmp_path / "plain").run()
    Line(tmp_path / "prolonged", epochs=2).run()
    Line(tmp_path / "prolonged").run()
    found, expected = contents(tmp_path / "prolonged"), contents(tmp_path / "plain")
    assert found["state"] == expected["state"] and found["weights"] == expected["weights"]


def test_a_shorter_end_than_was_planned_is_validated_too(tmp_path):
    cut = Line(tmp_path / "cut", epochs=5, validate_every=5)

    def batches(epoch, done):
        if epoch == 2:
            raise Killed
        return Line.batches(cut, epoch, done)

    cut.batches = batches
    with pytest.raises(Killed):
        cut.run()
    assert not cut.weights.exists()
    Line(tmp_path / "cut", epochs=2, validate_every=5).run()
    assert contents(tmp_path / "cut")["results"]["best"] == {"epoch": 2, "score": 3.0}


def test_patience(tmp_path):
    trainer = Line(tmp_path / "line", epochs=5, patience=2, scores=(3.0, 1.0, 2.0, 9.0, 9.0))
    trainer.run()
    assert len(trainer.progress.losses) == 3
    again = Line(tmp_path / "line", epochs=5, patience=2)
    again.run()
    assert again.calls == []


def test_a_loss_and_weights_that_are_not_finite(tmp_path):
    trainer = Line(tmp_path / "loss")
    trainer.step = lambda batch: float("nan")
    with pytest.raises(UserError, match=r"the loss of step 1 is not finite.*lower lr"):
        trainer.run()
    assert {file.name for file in trainer.folder.iterdir()} == {OURS, "config.yaml"}

    trainer = Line(tmp_path / "weights")

    def step(batch):
        trainer.line.weight.grad = torch.full_like(trainer.line.weight, float("inf"))
        return 1.0

    trainer.step = step
    with pytest.raises(UserError, match="the weights after step 5 are not finite"):
        trainer.run()
