"""Mine training triplets from captioned images, as in GeneCIS (Vaze et al., CVPR 2023).

    python similarity_retrieval/mine_triplets.py --config configs/mine_cc3m.yaml

    captions --parser--> graphs.jsonl (subject, relation, object) --rules--> triplets.jsonl

Reference and target of a triplet share a subject and have different objects. The condition names
the object of the target, and the distractor shows that object with another subject:

    reference "a dog on a sofa", condition "on bench", target "a dog on a bench",
    distractor "a cat on a bench"

All files are written to <outputs>/triplets/<name>. A killed run continues when it is started again,
and writes the same bytes as an uninterrupted one.
"""

from crl.run.command import command

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from crl.llm import OPENAI, Server
from crl.run.cache import LLM_ANSWERS
from crl.run.config import RunConfig, load_config
from crl.run.errors import UserError
from crl.run.files import alone_in, write_text
from crl.run.progress import progress
from crl.run.results import digest
from similarity_retrieval.mining.captions import caption_files, lines, read_captions
from similarity_retrieval.mining.concreteness import concreteness, read_ratings
from similarity_retrieval.mining.journal import Journal, batches, file_digest
from similarity_retrieval.mining.miner import TRIES, Miner, triplet_line
from similarity_retrieval.mining.records import Records, read_graphs
from similarity_retrieval.mining.scene_graphs import (
    PROMPT,
    SPACY_MODEL,
    Graph,
    Parser,
    Relation,
    llm_parser,
    spacy_parser,
)

SPACY_BATCH = 256  # captions between two records of progress
LLM_BATCH = 20  # captions per request
MINE_BATCH = 2000  # samples between two records of progress
MAX_CAPTION = 2000  # characters; a longer text is no caption and is not parsed


class MineConfig(RunConfig):
    """Keys of mine_triplets.py."""

    captions: str | None = Field(
        None, description=".jsonl, .csv, .tsv, COCO .json; .tar shards: a folder, x{0..9}.tar, *"
    )
    prefix: str = Field("", description="put before each image's name, e.g. train2017/")
    graphs: Path | None = Field(None, description="JSONL of parsed captions; instead of captions")
    parser: Literal["spacy", "llm"] = Field("spacy", description="spacy or llm")
    model: str = Field("gpt-4o-mini", description="of the LLM parser")
    base_url: str = Field(OPENAI, description="server of the LLM parser")
    cache: Path = Field(LLM_ANSWERS, description="where the LLM's answers are kept")
    ratings: Path | None = Field(
        None, description="Brysbaert's concreteness ratings, tab-separated; null: no filter"
    )
    concreteness: float = Field(
        4.8, allow_inf_nan=False, description="the mean of a triplet's six words is above this"
    )
    min_images: int = Field(5, ge=1, description="least number of images per subject")
    min_objects: int = Field(2, ge=2, description="least number of objects per subject")
    samples: int = Field(1_600_000, ge=1, description="triplets to draw")
    seed: int = Field(0, ge=0, description="sample i is drawn with the seed [seed, i]")

    @model_validator(mode="after")
    def _one_source(self) -> "MineConfig":
        if (self.captions is None) == (self.graphs is None):
            raise ValueError("set either captions or graphs (see configs/mine_cc3m.yaml)")
        return self


def mine_triplets(config: MineConfig) -> None:
    """Mine what is missing in <outputs>/triplets/<name>, and print what was mined."""
    folder = config.outputs / "triplets" / config.name
    for file in (config.graphs, config.ratings):
        if file and not file.is_file():
            raise UserError(f"{file} does not exist")
    with alone_in(folder):
        summary = mined(config, folder)
        write_text(
            folder / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        )
    report(summary, folder)


@command
def main(argv: list[str]) -> None:
    mine_triplets(load_config(MineConfig, argv, __doc__, unused=("device",)))


def mined(config: MineConfig, folder: Path) -> dict[str, Any]:
    """Write graphs.jsonl and triplets.jsonl, or go on with them; -> what was mined."""
    graphs = config.graphs or folder / "graphs.jsonl"
    parsed = None if config.graphs else parse_captions(config, graphs)

    records = read_graphs(graphs)
    rating = None
    if config.ratings:
        ratings = read_ratings(config.ratings)
        rating = np.array([concreteness(word, ratings) for word in records.words])
    rules = (config.concreteness, config.min_images, config.min_objects)
    miner = Miner(records, rating, *rules)
    rated = file_digest(config.ratings) if config.ratings else None
    key = digest("triplets", file_digest(graphs), rated, rules, config.samples, config.seed)
    triplets = folder / "triplets.jsonl"
    counts = mine(config, records, miner, triplets, key)

    return {
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
        "config": config.model_dump(mode="json", exclude={"device"})
        | {"base_url": Server(config.base_url).public_url},
    }


# --- captions -> graphs.jsonl ---------------------------------------------------------------------


def parse_captions(config: MineConfig, file: Path) -> Counter:
    """Parse all captions of the configuration into `file`; a file that was begun is continued.

    Returns:
        Counts: captions, unparsed (empty, too long, or the LLM could not parse them).
    """
    files = caption_files(config.captions)
    shards = files[0].suffix == ".tar"
    # Shards can be hundreds of gigabytes, so only their names and sizes are compared.
    inputs = [(f.name, f.stat().st_size if shards else file_digest(f)) for f in files]
    llm = config.parser == "llm"
    how = [config.model, PROMPT] if llm else [SPACY_MODEL]
    key = digest("graphs", inputs, config.prefix, config.parser, how)
    if next(read_captions(files), None) is None:
        raise UserError(f"{config.captions} holds no captions")
    with Journal(file, key) as journal:
        if journal.finished:
            return journal.counts
        # All files except shards are read to the end before the long work begins, so that an error
        # in the last line is reported at once.
        total = None if shards else sum(1 for _ in read_captions(files))
        parse = llm_parser(config.model, config.base_url, config.cache) if llm else spacy_parser()
        pairs = itertools.islice(read_captions(files, config.prefix), journal.done, None)
        bar = progress(label="captions", unit="captions", total=total, done=journal.done)
        with bar:
            for batch in batches(pairs, LLM_BATCH if llm else SPACY_BATCH):
                relations = parse_valid(parse, [pair.caption for pair in batch])
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


def parse_valid(parse: Parser, captions: list[str]) -> list[list[Relation] | None]:
    """`parse` of the captions; None for captions that are empty or too long."""
    valid = [i for i, text in enumerate(captions) if 0 < len(text.strip()) <= MAX_CAPTION]
    found: list[list[Relation] | None] = [None] * len(captions)
    parsed = parse([captions[i] for i in valid]) if valid else []
    for i, relations in zip(valid, parsed, strict=True):
        found[i] = relations
    return found


# --- graphs.jsonl -> triplets.jsonl ---------------------------------------------------------------


def mine(config: MineConfig, records: Records, miner: Miner, file: Path, key: str) -> Counter:
    """Write `config.samples` samples to `file`; a file that was begun is continued.

    Returns:
        Counts: mined and dropped samples, and the failed tries by rule.
    """
    with Journal(file, key) as journal:
        if journal.finished:
            return journal.counts
        numbers = range(journal.done, config.samples)
        bar = progress(label="samples", unit="samples", total=config.samples, done=journal.done)
        with bar:
            for batch in batches(numbers, MINE_BATCH):
                counts: Counter = Counter()
                found = [miner.sample(config.seed, number, counts) for number in batch]
                mined = [triplet_line(records, triplet) for triplet in found if triplet]
                counts.update(mined=len(mined), dropped=len(batch) - len(mined))
                journal.add(mined, len(batch), counts)
                bar.update(len(batch))
        journal.finish()
        return journal.counts


# --- what was mined -------------------------------------------------------------------------------


def most_common(file: Path, keys: Iterable[str], number: int = 10) -> dict[str, dict[str, int]]:
    """The most common values of each of `keys` in a JSONL file, with their counts."""
    counters: dict[str, Counter] = {key: Counter() for key in keys}
    for _, line in lines(file):
        value = json.loads(line)
        for key, counter in counters.items():
            counter[value[key]] += 1
    return {key: dict(counter.most_common(number)) for key, counter in counters.items()}


def report(summary: dict[str, Any], folder: Path) -> None:
    """Print what was mined, and why samples were dropped.

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
