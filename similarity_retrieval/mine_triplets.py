"""Mine training triplets from captioned images (GeneCIS: Vaze et al., CVPR 2023).

    python similarity_retrieval/mine_triplets.py --config configs/mine_cc3m.yaml

    captions --parser--> graphs.jsonl (subject, relation, object) --rules--> triplets.jsonl

The two images of a triplet share a subject and differ in its object; the condition names the
object of the second, and the distractor shows that object somewhere else:

    reference "a dog on a sofa", condition "on bench", target "a dog on a bench",
    distractor "a cat on a bench"

Everything goes to <outputs>/triplets/<name>. A run that was stopped, however rudely, goes on where
it was when it is started again, and gives the same bytes as one that was not.
"""

import hashlib
import itertools
import json
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import Field, ValidationError, model_validator
from tqdm import tqdm

from crl.run.config import Config, load_config
from crl.run.errors import UserError, command, explain
from crl.run.files import write_text
from crl.llm import OPENAI, Server
from crl.run.results import digest
from similarity_retrieval.captions import caption_files, lines, read_captions
from similarity_retrieval.scene_graphs import (
    PROMPT,
    SPACY_MODEL,
    Graph,
    Parser,
    Relation,
    llm_parser,
    spacy_parser,
)

T = TypeVar("T")

SPACY_BATCH = 256  # captions between two records of progress
LLM_BATCH = 20  # captions a request
MAX_CAPTION = 2000  # characters; a longer one is no caption, and is not parsed
TRIES = 1000  # of one sample, before it is dropped
TARGET_ATTEMPTS = 100  # within one try
DISTRACTOR_ATTEMPTS = 20  # before the record is sought among all instead of drawn
MINE_BATCH = 2000  # samples between two records of progress


class MineConfig(Config):
    """Keys of mine_triplets.py."""

    name: str = Field("run", description="results go to <outputs>/triplets/<name>")
    outputs: Path = Field(Path("outputs"), description="where results go")
    captions: str | None = Field(
        None, description=".jsonl, .csv, .tsv, COCO .json; .tar shards: a folder, x{0..9}.tar, *"
    )
    prefix: str = Field("", description="put before each image's name, e.g. train2017/")
    graphs: Path | None = Field(None, description="JSONL of parsed captions; instead of captions")
    parser: Literal["spacy", "llm"] = Field("spacy", description="spacy or llm")
    model: str = Field("gpt-4o-mini", description="of the LLM parser")
    base_url: str = Field(OPENAI, description="server of the LLM parser")
    cache: Path = Field(Path("cache/llm"), description="where the LLM's answers are kept")
    ratings: Path | None = Field(
        None, description="Brysbaert's concreteness ratings, tab-separated; null: no filter"
    )
    concreteness: float = Field(
        4.8, allow_inf_nan=False, description="the mean of a triplet's six words is above this"
    )
    min_images: int = Field(5, ge=1, description="a subject is seen in so many images or more")
    min_objects: int = Field(2, ge=2, description="... and with so many objects or more")
    samples: int = Field(1_600_000, ge=1, description="triplets to draw")
    seed: int = Field(0, ge=0, description="sample i is drawn with the seed [seed, i]")

    @model_validator(mode="after")
    def _one_source(self) -> "MineConfig":
        if (self.captions is None) == (self.graphs is None):
            raise ValueError("set either captions or graphs (see configs/mine_cc3m.yaml)")
        return self


# ---- files that grow, and are never half right --------------------------------------------------


class Journal:
    """A file of lines that grows batch by batch, and beside it a record of how far it is.

    What a killed run wrote after the last record is cut off, so a batch is there as a whole or
    not at all, and so are its counts.

    Attributes:
        done: how many items (captions, samples) the file covers.
        counts: what was counted on the way.
        finished: whether it covers all.

    Raises:
        UserError: the file was made from other inputs or settings (`key`), or not by this class.
    """

    def __init__(self, file: Path, key: str):
        self.file, self.key = file, key
        self.record = file.with_suffix(".progress.json")
        self.done, self.size, self.counts, self.finished = 0, 0, Counter(), False
        self.stream = None
        self._resume()

    def _resume(self) -> None:
        advice = f"take another name=, or delete it and {self.record.name}"
        if not self.record.exists():
            if self.file.exists():
                raise UserError(f"{self.file} was not made by this command; {advice}")
            return
        try:
            state = json.loads(self.record.read_text(encoding="utf-8"))
            same = state["key"] == self.key
            done, size = int(state["done"]), int(state["bytes"])
            counts, finished = Counter(state["counts"]), bool(state["finished"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.record} is damaged; {advice}") from error
        if not done:  # nothing to lose
            return
        if not same:
            raise UserError(f"{self.file} comes from other inputs or settings; {advice}")
        if not self.file.exists() or self.file.stat().st_size < size:
            raise UserError(f"{self.file} has lost its end; {advice}")
        self.done, self.size, self.counts, self.finished = done, size, counts, finished

    def add(self, rows: list[str], items: int, counts: Counter) -> None:
        """Write the lines `rows` that came of the next so many `items`."""
        self.size += self.stream.write("".join(row + "\n" for row in rows).encode())
        self.stream.flush()
        self.done += items
        self.counts += counts
        self._note()

    def finish(self) -> None:
        self.finished = True
        self._note()

    def _note(self) -> None:
        state = {
            "key": self.key,
            "done": self.done,
            "bytes": self.size,
            "counts": dict(sorted(self.counts.items())),
            "finished": self.finished,
        }
        write_text(self.record, json.dumps(state, indent=1) + "\n")

    def __enter__(self) -> "Journal":
        if not self.finished:
            self._note()  # before the file is there, lest it look like a foreign one
            self.stream = self.file.open("ab")
            self.stream.truncate(self.size)
        return self

    def __exit__(self, *error: object) -> None:
        if self.stream:
            self.stream.close()


def file_digest(file: Path) -> str:
    """SHA-256 of the content of `file`, in hex."""
    state = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def parse_captions(config: MineConfig, file: Path) -> Counter:
    """Parse all captions of the configuration into `file` (graphs.jsonl), or go on with it.

    Returns:
        Counts: captions, unparsed (empty or too long ones, and what the LLM could not do).
    """
    files = caption_files(config.captions)
    shards = files[0].suffix == ".tar"
    # Shards can be hundreds of gigabytes; their names and sizes must do.
    inputs = [(f.name, f.stat().st_size if shards else file_digest(f)) for f in files]
    how = [config.model, PROMPT] if config.parser == "llm" else [SPACY_MODEL]
    key = digest("graphs", inputs, config.prefix, config.parser, how)
    if next(read_captions(files), None) is None:
        raise UserError(f"{config.captions} holds no captions")
    with Journal(file, key) as journal:
        if journal.finished:
            return journal.counts
        # Other files are read to the end before the long work begins, so that what is wrong in
        # the last line is said at once.
        total = None if shards else sum(1 for _ in read_captions(files))
        parse = (
            llm_parser(config.model, config.base_url, config.cache)
            if config.parser == "llm"
            else spacy_parser()
        )
        pairs = itertools.islice(read_captions(files, config.prefix), journal.done, None)
        with tqdm(total=total, initial=journal.done, unit="caption", disable=None) as bar:
            for batch in _batches(pairs, LLM_BATCH if config.parser == "llm" else SPACY_BATCH):
                relations = _parse(parse, [pair.caption for pair in batch])
                graphs = [
                    Graph.model_construct(**dict(pair), relations=found or [])
                    for pair, found in zip(batch, relations, strict=True)
                ]
                unparsed = sum(found is None for found in relations)
                counts = Counter(captions=len(batch), unparsed=unparsed)
                journal.add([graph.model_dump_json() for graph in graphs], len(batch), counts)
                bar.update(len(batch))
        journal.finish()
        return journal.counts


def _parse(parse: Parser, captions: list[str]) -> list[list[Relation] | None]:
    """`parse` those that are captions; None for the others."""
    good = [i for i, text in enumerate(captions) if 0 < len(text.strip()) <= MAX_CAPTION]
    found: list[list[Relation] | None] = [None] * len(captions)
    for i, relations in zip(good, parse([captions[i] for i in good]) if good else [], strict=True):
        found[i] = relations
    return found


# ---- records ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Records:
    """All relations of all captions, as indices into lists of distinct strings.

    Attributes:
        image, subject, relation, object: (R,) int32; subject and object are indices into `words`.
        captions: how many there were.
    """

    images: list[str]
    words: list[str]
    relations: list[str]
    image: np.ndarray
    subject: np.ndarray
    relation: np.ndarray
    object: np.ndarray
    captions: int


def read_graphs(file: Path) -> Records:
    """Read a JSONL of graphs: {"image": ..., "relations": [{"subject", "relation", "object"}]}.

    Raises:
        UserError: a line that is something else (named by its number), or no relations at all.
    """
    # A new string gets the next index.
    images, words, relations = {}, {}, {}
    columns = [array("i") for _ in range(4)]
    captions = 0
    for where, line in tqdm(lines(file), desc="graphs", unit="line", disable=None, leave=False):
        try:
            graph = Graph.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error)}") from error
        captions += 1
        image = images.setdefault(graph.image, len(images))
        for found in graph.relations:
            columns[0].append(image)
            columns[1].append(words.setdefault(found.subject, len(words)))
            columns[2].append(relations.setdefault(found.relation, len(relations)))
            columns[3].append(words.setdefault(found.object, len(words)))
    if not columns[0]:
        what = f"none of its {captions} captions has a relation" if captions else "it is empty"
        raise UserError(f"{file}: there is nothing to mine, {what}")
    arrays = [np.frombuffer(column, dtype=np.int32) for column in columns]
    return Records(list(images), list(words), list(relations), *arrays, captions)


def read_ratings(file: Path) -> dict[str, float]:
    """Word -> mean concreteness from 1 to 5 (Brysbaert, Warriner and Kuperman, 2014).

    Raises:
        UserError: not a tab-separated file with the columns Word and Conc.M, or a line of another
            form; names its number.
    """
    ratings: dict[str, float] = {}
    columns = None
    for where, line in lines(file):
        cells = line.rstrip("\r\n").split("\t")
        if columns is None:
            columns = cells
            if not {"Word", "Conc.M"} <= set(columns):
                raise UserError(
                    f"{where}: concreteness ratings are a tab-separated file whose first line "
                    f"names the columns Word and Conc.M, not {line.strip()[:80]!r}"
                )
            continue
        try:
            row = dict(zip(columns, cells, strict=True))
            rating = float(row["Conc.M"])
        except ValueError as error:
            raise UserError(f"{where}: not {len(columns)} columns with a number Conc.M") from error
        if not 1 <= rating <= 5:
            raise UserError(f"{where}: a concreteness is from 1 to 5, not {rating}")
        ratings[row["Word"].strip().lower()] = rating
    if not ratings:
        raise UserError(f"{file} holds no ratings")
    return ratings


def concreteness(word: str, ratings: dict[str, float]) -> float:
    """The rating of `word`, else of its singular, else -1 (GeneCIS's value for unknown words)."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in ratings:
            return ratings[form]
    return -1.0


# ---- mining -------------------------------------------------------------------------------------


class Triplet(NamedTuple):
    """Three indices of records."""

    reference: int
    target: int
    distractor: int


class Miner:
    """Draws triplets by GeneCIS's rules.

    A sample: a subject, with probability proportional to its number of images; the reference, any
    of its records; the target, first any of the subject's objects, then any of its records with
    that; it has another object and another image than the reference. The distractor is any record
    of the target's object in a third image (the published code may give the target itself; a
    distractor that is the answer teaches nothing, so without a third image the try fails). The
    mean concreteness of their six words is above `threshold`.

    Args:
        rating: (words,) float64, concreteness of each of `records.words`; None: no filter.

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
        enough = (images >= min_images) & (objects >= min_objects)
        kept = np.flatnonzero(enough)
        self.subjects = {
            "all": int((images > 0).sum()),
            "too_few_images": int(((images > 0) & (images < min_images)).sum()),
            "too_few_objects": int(((images >= min_images) & (objects < min_objects)).sum()),
            "kept": len(kept),
        }
        if not len(kept):
            raise UserError(
                f"no subject is seen in {min_images} images or more and with {min_objects} objects "
                f"or more ({self.subjects['all']} subjects); give more captions, or lower "
                "min_images or min_objects"
            )
        # Memory views give plain integers, several times faster than NumPy's scalars.
        self.image, self.object = memoryview(records.image), memoryview(records.object)
        self.cumulative = np.cumsum(images[kept]).tolist()
        # Records sorted by subject, then object: a subject is a range of them, made of ranges of
        # one object each (cells); cells of one subject follow each other, too.
        order = np.lexsort((obj, subject))
        pair = (subject * n_words + obj)[order]
        self.by_subject = memoryview(order)
        self.cell_start = memoryview(np.append(np.searchsorted(pair, cells), len(pair)))
        self.first_cell = np.searchsorted(cells, kept * n_words).tolist()
        self.last_cell = np.searchsorted(cells, (kept + 1) * n_words).tolist()
        self.by_object = np.argsort(obj, kind="stable")
        self.object_start = memoryview(np.searchsorted(obj[self.by_object], np.arange(n_words + 1)))
        # (R,) the two words' ratings; three of them above six times the threshold. A mean that
        # equals the threshold must not pass by a rounding error.
        pairs = None if rating is None else rating[subject] + rating[obj]
        self.rating = None if pairs is None else memoryview(pairs)
        self.least = 6 * threshold + 1e-9

    def sample(self, seed: int, number: int, failed: Counter) -> Triplet | None:
        """The triplet of sample `number`, the same whenever it is asked for; None: dropped.

        Args:
            failed: the tries that failed are counted here, by the rule: no_target, no_distractor,
                concreteness.
        """
        random = np.random.default_rng([seed, number]).random
        for _ in range(TRIES):
            which = bisect_right(self.cumulative, int(random() * self.cumulative[-1]))
            first, last = self.first_cell[which], self.last_cell[which]
            low, high = self.cell_start[first], self.cell_start[last]
            reference = self.by_subject[low + int(random() * (high - low))]
            target = self._target(random, first, last, reference)
            if target is None:
                failed["no_target"] += 1
                continue
            distractor = self._distractor(random, reference, target)
            if distractor is None:
                failed["no_distractor"] += 1
                continue
            triplet = Triplet(reference, target, distractor)
            if self.rating is None or sum(self.rating[i] for i in triplet) > self.least:
                return triplet
            failed["concreteness"] += 1
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
        low = self.object_start[self.object[target]]
        high = self.object_start[self.object[target] + 1]
        for _ in range(DISTRACTOR_ATTEMPTS):
            distractor = int(self.by_object[low + int(random() * (high - low))])
            if self.image[distractor] not in taken:
                return distractor
        # Few or none: look at them all. The draw stays uniform.
        among = [i for i in self.by_object[low:high].tolist() if self.image[i] not in taken]
        return among[int(random() * len(among))] if among else None


def triplet_line(records: Records, triplet: Triplet) -> str:
    """The line of triplets.jsonl."""
    reference, target, distractor = (records.images[records.image[i]] for i in triplet)
    at = triplet.target
    relation, obj = records.relations[records.relation[at]], records.words[records.object[at]]
    value = {
        "reference": reference,
        "target": target,
        "condition": f"{relation} {obj}",
        "distractor": distractor,
        "subject": records.words[records.subject[at]],
    }
    return json.dumps(value, ensure_ascii=False)


def mine(config: MineConfig, records: Records, miner: Miner, file: Path, key: str) -> Counter:
    """Write `config.samples` samples to `file` (triplets.jsonl), or go on with it.

    Returns:
        Counts: mined, dropped (samples), and the failed tries by their rule.
    """
    with Journal(file, key) as journal:
        if journal.finished:
            return journal.counts
        numbers = range(journal.done, config.samples)
        with tqdm(total=config.samples, initial=journal.done, unit="sample", disable=None) as bar:
            for batch in _batches(numbers, MINE_BATCH):
                counts: Counter = Counter()
                found = [miner.sample(config.seed, number, counts) for number in batch]
                mined = [triplet_line(records, triplet) for triplet in found if triplet]
                counts.update(mined=len(mined), dropped=len(batch) - len(mined))
                journal.add(mined, len(batch), counts)
                bar.update(len(batch))
        journal.finish()
        return journal.counts


def most_common(file: Path, keys: Iterable[str], number: int = 10) -> dict[str, dict[str, int]]:
    """The values that `keys` have most often in a JSONL, with how often."""
    counters: dict[str, Counter] = {key: Counter() for key in keys}
    for _, line in lines(file):
        value = json.loads(line)
        for key, counter in counters.items():
            counter[value[key]] += 1
    return {key: dict(counter.most_common(number)) for key, counter in counters.items()}


@command
def main(argv: list[str]) -> None:
    config = load_config(MineConfig, argv, __doc__)
    folder = config.outputs / "triplets" / config.name
    for file in (config.graphs, config.ratings):
        if file and not file.is_file():
            raise UserError(f"{file} does not exist")
    ratings = read_ratings(config.ratings) if config.ratings else None
    graphs = config.graphs or folder / "graphs.jsonl"
    parsed = None if config.graphs else parse_captions(config, graphs)
    records = read_graphs(graphs)
    rating = ratings and np.array([concreteness(word, ratings) for word in records.words])
    rules = (config.concreteness, config.min_images, config.min_objects)
    miner = Miner(records, rating, *rules)
    rated = file_digest(config.ratings) if config.ratings else None
    key = digest("triplets", file_digest(graphs), rated, rules, config.samples, config.seed)
    triplets = folder / "triplets.jsonl"
    counts = mine(config, records, miner, triplets, key)
    summary = {
        "captions": records.captions,
        "unparsed_captions": parsed and parsed["unparsed"],
        "images": len(records.images),
        "relations": len(records.image),
        "subjects": miner.subjects,
        "samples": config.samples,
        "mined": counts["mined"],
        "dropped": counts["dropped"],
        "failed_tries": {
            rule: counts[rule] for rule in ("no_target", "no_distractor", "concreteness")
        },
        "most_common": most_common(triplets, ("subject", "condition")),
        # Without the user name and password that a base URL may hold.
        "config": config.model_dump(mode="json") | {"base_url": Server(config.base_url).public_url},
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    report(summary, folder)


def report(summary: dict[str, Any], folder: Path) -> None:
    """Print what was mined, and why the rest was not.

    Raises:
        UserError: nothing was mined.
    """
    subjects, failed = summary["subjects"], summary["failed_tries"]
    unparsed = summary["unparsed_captions"]
    print(
        f"{summary['captions']} captions{f' ({unparsed} not parsed)' if unparsed else ''} of "
        f"{summary['images']} images: {summary['relations']} relations"
    )
    print(
        f"{subjects['all']} subjects: {subjects['kept']} kept, {subjects['too_few_images']} with "
        f"too few images, {subjects['too_few_objects']} with too few objects"
    )
    reasons = (
        f"failed tries: {failed['no_target']} no target, {failed['no_distractor']} no distractor, "
        f"{failed['concreteness']} not concrete enough"
    )
    if not summary["mined"]:
        raise UserError(
            f"not one of {summary['samples']} samples gave a triplet ({reasons}); give more "
            "captions, or loosen the rules under another name="
        )
    print(
        f"{summary['mined']} triplets of {summary['samples']} samples asked for, "
        f"{summary['dropped']} dropped after {TRIES} tries each; {reasons}"
    )
    for what, common in summary["most_common"].items():
        listed = ", ".join(f"{name} {count}" for name, count in common.items())
        print(f"most common {what}s: {listed}")
    print(f"triplets: {folder / 'triplets.jsonl'}")


if __name__ == "__main__":
    main()
