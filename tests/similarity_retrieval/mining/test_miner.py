"""The rules, against the chance of each triplet by going through all that can happen."""

from collections import Counter

import numpy as np
from mining_files import graph, write_jsonl

from similarity_retrieval.mining import miner as module
from similarity_retrieval.mining.miner import Miner
from similarity_retrieval.mining.records import read_graphs


def exact_chances(records, min_images, min_objects):
    """The chance of every (reference, target, distractor), by going through all that can happen."""
    chances = {}
    subjects = {}
    for i, (image, subject, _, obj) in enumerate(records):
        subjects.setdefault(subject, []).append((i, image, obj))
    for rows in subjects.values():
        images, objects = {image for _, image, _ in rows}, [obj for _, _, obj in rows]
        if len(images) < min_images or len(set(objects)) < min_objects:
            continue
        for i, image, obj in rows:
            # A target's weight: one of the objects, then one of its records.
            targets = {
                j: (1 / objects.count(o), picture, o)
                for j, picture, o in rows
                if o != obj and picture != image
            }
            whole = sum(weight for weight, _, _ in targets.values())
            for j, (weight, picture, o) in targets.items():
                distractors = [
                    k
                    for k, (other, _, _, item) in enumerate(records)
                    if item == o and other not in {image, picture}
                ]
                for k in distractors:
                    chance = len(images) / len(rows) * weight / whole / len(distractors)
                    chances[i, j, k] = chance
    whole = sum(chances.values())  # tries that fail are made again
    return {triplet: chance / whole for triplet, chance in chances.items()}


def test_each_triplet_comes_as_often_as_the_rules_say(tmp_path):
    graphs = [
        graph("a", ("dog", "on", "sofa"), ("dog", "by", "lamp"), ("cat", "on", "sofa")),
        graph("b", ("dog", "on", "sofa"), ("cat", "on", "bed")),
        graph("c", ("dog", "on", "sofa"), ("dog", "near", "bed")),
        graph("d", ("dog", "on", "bed"), ("dog", "in", "car")),
        graph("e", ("cat", "by", "lamp"), ("fox", "in", "car"), ("cat", "on", "bed")),
        graph("f", ("fox", "on", "sofa")),
        graph("a", ("dog", "under", "lamp")),
        *(graph(f"g{i}", ("dog", "on", "rug")) for i in range(2)),  # a dog's rug is the only one
    ]
    arrays = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))
    miner = Miner(arrays, None, 0, 3, 2)
    n = 40_000
    drawn = Counter(miner.sample(0, i) for i in range(n))
    records = [(g["image"], *r.values()) for g in graphs for r in g["relations"]]
    chances = exact_chances(records, 3, 2)
    assert set(drawn) <= set(chances)
    for triplet, chance in chances.items():
        assert abs(drawn[triplet] / n - chance) < 5 * (chance / n) ** 0.5, triplet
    # Of two lamps, the distractor's is in the image of the reference, or of the target.
    assert miner.failed["no distractor"] > 0 and miner.failed["no target"] == 0


def test_a_distractor_is_found_even_if_it_is_one_of_thousands(tmp_path):
    graphs = [graph("b", ("cat", "on", "car")) for _ in range(3000)]
    graphs += [graph("a", ("dog", "on", "car")), graph("b", ("dog", "on", "bed"))]
    graphs += [graph("c", ("cat", "on", "car"))]
    records = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))
    miner = Miner(records, None, 0, 2, 2)
    assert [miner.sample(1, i) for i in range(3)] == [(3001, 3000, 3002)] * 3


def test_a_mean_equal_to_the_threshold_is_not_above_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 3)
    graphs = [graph(f"a{i}", ("dog", "on", ["bed", "car"][i % 2])) for i in range(8)]
    records = read_graphs(write_jsonl(tmp_path / "g.jsonl", graphs))

    def mined(value, threshold):
        miner = Miner(records, np.full(3, value), threshold, 5, 2)
        return miner.sample(0, 0) is not None

    for value in np.round(np.arange(1, 5.01, 0.01), 2):
        assert not mined(value, value)
    assert mined(4.81, 4.8) and not mined(4.79, 4.8)


def test_no_candidates_says_the_thresholds(mine_refused, tmp_path):
    file = write_jsonl(tmp_path / "g.jsonl", [graph(str(i), ("dog", "on", "bed")) for i in "abcde"])
    message = mine_refused(graphs=file, min_images=5)
    assert "5 images or more and with 2 objects or more (1 subjects)" in message
