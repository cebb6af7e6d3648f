"""The demo VLM's training: targets and loss against slow loops, and exact resumption."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import train_vlm as training

from crl.backends.torchvision_fix import import_torchvision


def test_a_caption_says_its_claims_and_is_true_of_an_image_if_all_of_them_hold():
    facts = np.stack([training.draw_one(index, seed=9)[1] for index in range(40)])
    captions, claims = training.write_captions(facts, 0.9, 0.3, np.random.default_rng(0))
    true = training.truth(torch.from_numpy(facts), torch.from_numpy(claims))
    for j, (caption, claim) in enumerate(zip(captions, claims, strict=True)):
        for classes, value in zip(training.CLASSES, claim, strict=True):
            if value >= 0:
                assert any(phrase in caption for phrase in list(classes.values())[value])
        holds = [all((claim == training.UNSAID) | (claim == row)) for row in facts]
        assert true[:, j].tolist() == holds
    assert true.diagonal().all()


def test_loss_against_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 6, generator=generator)
    true = torch.rand(6, 6, generator=generator) < 0.3
    true.fill_diagonal_(True)
    total = 0.0
    for i in range(6):
        for row, target in ((logits[i], true[i]), (logits[:, i], true[:, i])):
            log_sum = np.log(sum(np.exp(float(x)) for x in row))
            chosen = [float(x) - log_sum for x, t in zip(row, target, strict=True) if t]
            total -= sum(chosen) / len(chosen) / 12
    assert float(training.contrastive_loss(logits, true)) == pytest.approx(total, abs=1e-5)


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    import_torchvision()
    from open_clip.model import CLIP

    monkeypatch.setattr(training, "PHASES", [(4, 1e-3, 5, 0.5, 0.5), (3, 5e-4, 3, 0.9, 0.1)])
    monkeypatch.setattr(training, "BATCH", 8)
    monkeypatch.setattr(torch, "autocast", lambda *_: nullcontext())  # bf16 is slow on many CPUs
    monkeypatch.setattr(training, "CHECKPOINT", 2)
    tokenizer = training.build_tokenizer(tmp_path / "tokenizer")
    pictures, facts = training.draw_training_set(tmp_path, images=40, workers=1)

    def run(work, stop_at=None):
        work.mkdir(exist_ok=True)
        torch.manual_seed(0)
        text_cfg = {**training.MODEL["text_cfg"], "vocab_size": len(tokenizer)}
        model = CLIP(**{**training.MODEL, "text_cfg": text_cfg})
        steps, write_captions = iter(range(9)), training.write_captions

        def stopping(*arguments):
            if next(steps) == stop_at:
                raise KeyboardInterrupt
            return write_captions(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(training, "write_captions", stopping)
            training.train(model, tokenizer, pictures, facts, work)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop_at=5)  # in the second phase, one step after a checkpoint
    resumed = run(tmp_path / "broken")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0)
