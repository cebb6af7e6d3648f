"""GeneCIS's rules for drawing triplets."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable

import numpy as np

from crl.run.errors import UserError
from similarity_retrieval.mining.records import Records

TRIES = 1000  # per sample, before it is dropped
TARGET_ATTEMPTS = 100  # per try
DISTRACTOR_ATTEMPTS = 20  # per try; then all possible records are listed, and one of them is drawn


class Miner:
    """Draws triplets by GeneCIS's rules.

    One try draws, in this order,

    1. a subject, with probability proportional to its number of images;
    2. the reference: any record of that subject;
    3. the target: any of the subject's objects, then any of its records with that object. Object
       and image must differ from the reference's;
    4. the distractor: any record of the target's object in a third image.

    The mean concreteness of the six words of these records must be above `threshold`. If a rule
    fails, the next try begins with a new subject.

    The published code may take the target itself as the distractor. This would be useless for
    training, so here a try without a third image fails.

    Args:
        rating: (words,) float64, concreteness of each of `records.words`; None: no filter.

    Attributes:
        subjects: how many there are, and how many of them each rule excludes.
        failed: tries that failed so far by rule.

    Raises:
        UserError: no subject has `min_images` images and `min_objects` objects.
    """

    def __init__(
        self,
        records: Records,
        rating: np.ndarray | None,
        threshold: float,
        min_images: int,
        min_objects: int,
    ):
        n_words, n_images = len(records.words), len(records.images)
        subject, obj = records.subject.astype(np.int64), records.object.astype(np.int64)
        seen = np.unique(subject * n_images + records.image) // n_images
        images = np.bincount(seen, minlength=n_words)  # distinct images of each subject
        cells = np.unique(subject * n_words + obj)  # distinct pairs of subject and object, sorted
        objects = np.bincount(cells // n_words, minlength=n_words)
        kept = np.flatnonzero((images >= min_images) & (objects >= min_objects))
        self.subjects = {
            "all": int((images > 0).sum()),
            "too few images": int(((images > 0) & (images < min_images)).sum()),
            "too few objects": int(((images >= min_images) & (objects < min_objects)).sum()),
            "kept": len(kept),
        }
        if not len(kept):
            raise UserError(
                f"no subject is seen in {min_images} images or more and with {min_objects} objects "
                f"or more ({self.subjects['all']} subjects); give more captions, or lower "
                "min_images or min_objects"
            )
        self.records = records
        # Memory views give plain integers, several times faster than NumPy's scalars.
        self.image, self.object = memoryview(records.image), memoryview(records.object)
        self.cumulative = np.cumsum(images[kept]).tolist()
        # Records sorted by subject, then object. A cell is the range of records with one subject
        # and one object. The cells of a subject are adjacent, so a subject is a range too.
        order = np.lexsort((obj, subject))
        pair = (subject * n_words + obj)[order]
        self.by_subject = memoryview(order)
        self.cell_start = memoryview(np.append(np.searchsorted(pair, cells), len(pair)))
        self.first_cell = np.searchsorted(cells, kept * n_words).tolist()
        self.last_cell = np.searchsorted(cells, (kept + 1) * n_words).tolist()
        by_object = np.argsort(obj, kind="stable")
        self.by_object = memoryview(by_object)
        self.object_start = memoryview(np.searchsorted(obj[by_object], np.arange(n_words + 1)))
        # (R,) the sum of the two words' ratings; the sum over three records must be above six times
        # the threshold. A mean equal to the threshold must not pass because of a rounding error.
        self.rating = None if rating is None else memoryview(rating[subject] + rating[obj])
        self.least = 6 * threshold + 1e-9
        self.failed: Counter = Counter({"no target": 0, "no distractor": 0, "not concrete": 0})

    def sample(self, seed: int, number: int) -> tuple[int, int, int] | None:
        """Reference, target and distractor (indices of records) of sample `number`, which depends
        only on `seed` and `number`; None: it is dropped."""
        random = np.random.default_rng([seed, number]).random
        for _ in range(TRIES):
            place = bisect_right(self.cumulative, int(random() * self.cumulative[-1]))
            first, last = self.first_cell[place], self.last_cell[place]
            low, high = self.cell_start[first], self.cell_start[last]
            reference = self.by_subject[low + int(random() * (high - low))]
            target = self._target(random, first, last, reference)
            if target is None:
                self.failed["no target"] += 1
                continue
            distractor = self._distractor(random, reference, target)
            if distractor is None:
                self.failed["no distractor"] += 1
                continue
            sample = (reference, target, distractor)
            if self.rating is None or sum(self.rating[i] for i in sample) > self.least:
                return sample
            self.failed["not concrete"] += 1
        return None

    def _target(
        self, random: Callable[[], float], first: int, last: int, reference: int
    ) -> int | None:
        image, obj = self.image[reference], self.object[reference]
        for _ in range(TARGET_ATTEMPTS):
            cell = first + int(random() * (last - first))
            low, high = self.cell_start[cell], self.cell_start[cell + 1]
            target = self.by_subject[low + int(random() * (high - low))]
            if self.object[target] != obj and self.image[target] != image:
                return target
        return None

    def _distractor(self, random: Callable[[], float], reference: int, target: int) -> int | None:
        taken = (self.image[reference], self.image[target])
        obj = self.object[target]
        low, high = self.object_start[obj], self.object_start[obj + 1]
        for _ in range(DISTRACTOR_ATTEMPTS):
            distractor = self.by_object[low + int(random() * (high - low))]
            if self.image[distractor] not in taken:
                return distractor
        # There are few or none: list them all. The draw stays uniform.
        others = [i for i in self.by_object[low:high] if self.image[i] not in taken]
        return others[int(random() * len(others))] if others else None

    def triplet(self, sample: tuple[int, int, int]) -> dict[str, str]:
        """The names behind a sample: a line of triplets.jsonl."""
        records = self.records
        reference, target, distractor = (records.images[self.image[i]] for i in sample)
        relation = records.relations[records.relation[sample[1]]]
        return {
            "reference": reference,
            "target": target,
            "condition": f"{relation} {records.words[self.object[sample[1]]]}",
            "distractor": distractor,
            "subject": records.words[records.subject[sample[1]]],
        }
