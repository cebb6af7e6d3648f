"""The demo VLM's training: targets and loss against slow loops, and exact resumption."""

import numpy as np
import pytest
import torch
import train_vlm as training
from worlds import WORLDS

from crl.run.torchvision_fix import import_torchvision


def test_a_caption_is_true_of_an_image_if_all_that_it_says_holds():
    rng = np.random.default_rng(0)
    drawn = [training.draw_one(index, seed=9)[1] for index in range(40)]
    facts = np.stack(drawn)
    captions, said = training.write_captions(facts, 0.5, 0.5, rng)
    true = training.truth(torch.from_numpy(facts), torch.from_numpy(said))
    for i in range(40):
        for j in range(40):
            slow = all(
                said[j, a] == training.UNSAID or said[j, a] == facts[i, a]
                for a in range(facts.shape[1])
            )
            assert bool(true[i, j]) == slow, (captions[j], facts[i])
    assert true.diagonal().all()


def test_captions_say_what_they_are_said_to_say():
    facts = np.stack([training.draw_one(index, seed=9)[1] for index in range(60)])
    captions, said = training.write_captions(facts, 0.9, 0.2, np.random.default_rng(1))
    for caption, row in zip(captions, said, strict=True):
        for (name, attribute), value in zip(training.COLUMNS, row, strict=True):
            if value >= 0:
                phrases = list(training.worlds[name].PHRASES[attribute].values())[value]
                assert any(phrase in caption for phrase in phrases)


def test_the_dominant_attribute_is_named_far_more_often():
    facts = np.stack([training.draw_one(index, seed=9)[1] for index in range(300)])
    _, said = training.write_captions(facts, 0.95, 0.12, np.random.default_rng(1))
    for name in WORLDS:
        named = {True: [], False: []}  # dominant or not -> was it named where it could be?
        for c, (world, attribute) in enumerate(training.COLUMNS):
            if world == name:
                could = np.array([f >= 0 and training.SAYABLE[c][f] for f in facts[:, c]])
                named[attribute in training.worlds[name].DOMINANT] += list(said[could, c] >= 0)
        # a scene with three objects names one of four things where it names one thing only
        assert np.mean(named[True]) > 0.7 and np.mean(named[False]) < 0.25


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


def test_pictures_for_training_are_not_those_of_the_demo_data():
    """Other seeds draw other facts and pictures; the demo data is drawn from seed 0."""
    from worlds import clevr4

    mine, _ = training.draw_one(0)
    rng = np.random.default_rng([0, 0])
    theirs = clevr4.draw(clevr4.sample(rng), rng).resize((96, 96))
    assert np.abs(mine.astype(float) - np.asarray(theirs, float)).mean() > 5


def test_augmented_pictures_keep_their_shape_and_range_and_differ():
    pictures = torch.rand(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    one = training.augment(pictures, torch.Generator().manual_seed(1))
    two = training.augment(pictures, torch.Generator().manual_seed(1))
    assert one.shape == pictures.shape and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, two) and not torch.allclose(one, pictures)


def test_phases_follow_each_other():
    first, second, third, *_ = training.PHASES
    assert training.phase_of(0) == (0, first)
    assert training.phase_of(first[0] - 1) == (0, first)
    assert training.phase_of(first[0]) == (first[0], second)
    assert training.phase_of(first[0] + second[0]) == (first[0] + second[0], third)


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    import_torchvision()
    from open_clip.model import CLIP

    monkeypatch.setattr(training, "PHASES", [(4, 1e-3, 5, 0.5, 0.5), (3, 5e-4, 3, 0.9, 0.1)])
    monkeypatch.setattr(training, "BATCH", 8)
    monkeypatch.setattr(training, "CHECKPOINT", 2)
    tokenizer = training.build_tokenizer(tmp_path / "tokenizer")
    pictures, facts = training.draw_training_set(tmp_path, images=40, workers=1)

    def run(work, stop_at=None):
        work.mkdir(exist_ok=True)
        torch.manual_seed(0)
        text_cfg = {**training.MODEL["text_cfg"], "vocab_size": len(tokenizer)}
        model = CLIP(**{**training.MODEL, "text_cfg": text_cfg})
        phase_of = training.phase_of

        def stopping(step):
            if step == stop_at:
                raise KeyboardInterrupt
            return phase_of(step)

        with monkeypatch.context() as patch:
            patch.setattr(training, "phase_of", stopping)
            training.train(model, tokenizer, pictures, facts, work)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop_at=5)  # in the second phase, one step after a checkpoint
    resumed = run(tmp_path / "broken")
    for name, tensor in whole.items():
        torch.testing.assert_close(resumed[name], tensor, rtol=0, atol=0)
