"""The rules, against the chance of each triplet by going through all that can happen."""

import hashlib
from collections import Counter

import numpy as np
from mining_files import world, write_jsonl

from similarity_retrieval.mining import miner as module
from similarity_retrieval.mining.miner import Miner
from similarity_retrieval.mining.records import Record, read_graphs


def exact_chances(records, min_images, min_objects):
    """The chance of every (reference, target, distractor), by going through all that can happen."""
    chances = {}
    for subject in {record.subject for record in records}:
        rows = [record for record in records if record.subject == subject]
        images, objects = {row.image for row in rows}, [row.object for row in rows]
        if len(images) < min_images or len(set(objects)) < min_objects:
            continue
        for reference in rows:
            # A target's weight: one of the objects, then one of its records.
            targets = {
                row: 1 / objects.count(row.object)
                for row in rows
                if row.object != reference.object and row.image != reference.image
            }
            for target, weight in targets.items():
                distractors = [
                    record
                    for record in records
                    if record.object == target.object
                    and record.image not in {reference.image, target.image}
                ]
                chance = len(images) / len(rows) * weight / sum(targets.values())
                for distractor in distractors:
                    chances[reference, target, distractor] = chance / len(distractors)
    whole = sum(chances.values())  # tries that fail are made again
    return {triplet: chance / whole for triplet, chance in chances.items()}


def test_each_triplet_comes_as_often_as_the_rules_say():
    # Only dogs are on rugs.
    rows = """a dog on sofa, a dog by lamp, a cat on sofa, b dog on sofa, b cat on bed,
        c dog on sofa, c dog near bed, d dog on bed, d dog in car, e cat by lamp, e fox in car,
        e cat on bed, f fox on sofa, a dog under lamp, g dog on rug, h dog on rug"""
    records = [Record(*row.split()) for row in rows.split(",")]
    miner = Miner(records, None, 0, 3, 2)
    n = 40_000
    drawn = Counter(miner.sample(0, i) for i in range(n))
    chances = exact_chances(records, 3, 2)
    assert set(drawn) <= set(chances)
    for triplet, chance in chances.items():
        assert abs(drawn[triplet] / n - chance) < 5 * (chance / n) ** 0.5, triplet
    # Of two lamps, the distractor's is in the image of the reference, or of the target.
    assert miner.failed["no distractor"] > 0 and miner.failed["no target"] == 0


def test_draws_do_not_change(tmp_path):
    """The triplets of this world as they were first mined: a seed gives the same ones for ever."""
    records, _ = read_graphs(write_jsonl(tmp_path / "g.jsonl", world()))
    miner = Miner(records, None, 0, 5, 2)
    drawn = [miner.sample(0, i) for i in range(2000)]
    text = "\n".join(f"{r.image} {t.image} {t.object} {d.image}" for r, t, d in drawn)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "1fd2697d96ea8e58"


def test_a_distractor_is_found_even_if_it_is_one_of_thousands():
    dogs = [Record("a", "dog", "on", "car"), Record("b", "dog", "on", "bed")]
    third = Record("c", "cat", "on", "car")
    records = [*(Record("b", "cat", "on", "car") for _ in range(3000)), *dogs, third]
    miner = Miner(records, None, 0, 2, 2)
    assert [miner.sample(1, i) for i in range(3)] == [(dogs[1], dogs[0], third)] * 3


def test_a_mean_equal_to_the_threshold_is_not_above_it(monkeypatch):
    monkeypatch.setattr(module, "TRIES", 3)
    records = [Record(f"a{i}", "dog", "on", ["bed", "car"][i % 2]) for i in range(8)]

    def mined(value, threshold):
        rating = dict.fromkeys(["dog", "bed", "car"], value)
        return Miner(records, rating, threshold, 5, 2).sample(0, 0) is not None

    for value in np.round(np.arange(1, 5.01, 0.01), 2):
        assert not mined(value, value)
    assert mined(4.81, 4.8) and not mined(4.79, 4.8)
