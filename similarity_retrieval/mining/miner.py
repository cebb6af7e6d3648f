"""GeneCIS's rules for drawing triplets."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import accumulate, chain
from typing import Any

import numpy as np

from crl.run.errors import UserError
from similarity_retrieval.mining.records import Record

Draw = Callable[[list], Any]  # one of a list, all equally likely

TRIES = 1000  # per sample, before it is dropped
TARGET_ATTEMPTS = 100  # per try
DISTRACTOR_ATTEMPTS = 20  # per try; then all possible records are listed, and one of them is drawn


class Miner:
    """Draws triplets by GeneCIS's rules. One try draws, in this order,

    1. a subject, with probability proportional to its number of images;
    2. the reference: any record of that subject;
    3. the target: any of the subject's objects, then any of its records with that object. Object
       and image must differ from the reference's;
    4. the distractor: any record of the target's object in a third image.

    The mean concreteness of the six words of these records must be above `threshold`; `rating` has
    it for each word, or is None: no filter. If a rule fails, the next try begins with a new
    subject; `failed` counts the tries that failed so far. The published code may take the target
    itself as the distractor, useless for training: here a try without a third image fails.

    A UserError if no subject has `min_images` images and `min_objects` objects.
    """

    def __init__(
        self, records: list[Record], rating: dict[str, float] | None, threshold: float,
        min_images: int, min_objects: int,
    ):  # fmt: skip
        order: dict[str, int] = {}  # word -> its place in the order of first appearance
        images, cells = defaultdict(set), defaultdict(lambda: defaultdict(list))
        self.by_object = defaultdict(list)
        for record in records:
            for word in (record.subject, record.object):
                order.setdefault(word, len(order))
            images[record.subject].add(record.image)
            cells[record.subject][record.object].append(record)
            self.by_object[record.object].append(record)
        seen = [subject for subject in images if len(images[subject]) >= min_images]
        kept = [subject for subject in seen if len(cells[subject]) >= min_objects]
        self.subjects = {"all": len(images), "kept": len(kept)}
        if not kept:
            least = f"{min_images} images or more and with {min_objects} objects or more"
            raise UserError(f"no subject is seen in {least} ({len(images)}); give more captions")
        kept.sort(key=order.get)
        # Of each subject: its records by object, and all of them.
        self.cells = [[cells[word][o] for o in sorted(cells[word], key=order.get)] for word in kept]
        self.by_subject = [list(chain.from_iterable(lists)) for lists in self.cells]
        self.cumulative = list(accumulate(len(images[subject]) for subject in kept))
        self.rating = rating
        # A mean equal to the threshold must not pass because of a rounding error.
        self.least = 6 * threshold + 1e-9
        self.failed: Counter = Counter({"no target": 0, "no distractor": 0, "not concrete": 0})

    def sample(self, seed: int, number: int) -> tuple[Record, Record, Record] | None:
        """Reference, target and distractor of sample `number`, which depends only on `seed` and
        `number`; None: it is dropped."""
        random = np.random.default_rng([seed, number]).random

        def draw(items: list) -> Any:
            return items[int(random() * len(items))]

        for _ in range(TRIES):
            subject = bisect_right(self.cumulative, int(random() * self.cumulative[-1]))
            reference = draw(self.by_subject[subject])
            target = self._target(draw, self.cells[subject], reference)
            distractor = target and self._distractor(draw, reference, target)
            if target is None:
                self.failed["no target"] += 1
            elif distractor is None:
                self.failed["no distractor"] += 1
            elif self._concrete(reference, target, distractor):
                return reference, target, distractor
            else:
                self.failed["not concrete"] += 1
        return None

    def _target(self, draw: Draw, cells: list[list[Record]], reference: Record) -> Record | None:
        for _ in range(TARGET_ATTEMPTS):
            target = draw(draw(cells))
            if target.object != reference.object and target.image != reference.image:
                return target
        return None

    def _distractor(self, draw: Draw, reference: Record, target: Record) -> Record | None:
        taken = (reference.image, target.image)
        candidates = self.by_object[target.object]
        for _ in range(DISTRACTOR_ATTEMPTS):
            distractor = draw(candidates)
            if distractor.image not in taken:
                return distractor
        # There are few or none: list them all. The draw stays uniform.
        others = [record for record in candidates if record.image not in taken]
        return draw(others) if others else None

    def _concrete(self, *sample: Record) -> bool:
        if self.rating is None:
            return True
        return sum(self.rating[r.subject] + self.rating[r.object] for r in sample) > self.least
