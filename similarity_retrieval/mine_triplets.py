"""Mine training triplets from captioned images, as in GeneCIS (Vaze et al., CVPR 2023).

    python similarity_retrieval/mine_triplets.py --config configs/mine_cc3m.yaml

    captions --spaCy--> graphs-*.jsonl (subject, relation, object) --rules--> triplets.jsonl

Reference and target of a triplet share a subject and have different objects. The condition names
the object of the target, and the distractor shows that object with another subject:

    reference "a dog on a sofa", condition "on bench", target "a dog on a bench", distractor "a cat
    on a bench"

All files are written to <outputs>/triplets/<name>. A killed run that is started again goes on
parsing where it was, and ends with the same bytes as an undisturbed one.
"""

from crl.run.command import command

import itertools
import json
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from crl.run.config import RunConfig, load_config
from crl.run.errors import UserError
from crl.run.files import alone_in, atomic_path, no_link, write_text
from crl.run.progress import progress
from crl.run.results import digest
from similarity_retrieval.mining.captions import caption_files, read_captions
from similarity_retrieval.mining.files import file_digest
from similarity_retrieval.mining.miner import Miner
from similarity_retrieval.mining.records import concreteness, read_graphs, read_ratings
from similarity_retrieval.mining.scene_graphs import BATCH, SPACY_MODEL, spacy_parser

RULES = {"concreteness", "min_images", "min_objects", "samples", "seed"}


class MineConfig(RunConfig):
    """Keys of mine_triplets.py."""

    captions: str | None = Field(
        None, description=".jsonl, .csv, .tsv, COCO .json, or .tar shards: a folder or a pattern"
    )
    prefix: str = Field("", description="put before each image's name, e.g. train2017/")
    graphs: Path | None = Field(None, description="JSONL of parsed captions; instead of captions")
    ratings: Path | None = Field(None, description="Brysbaert's concreteness ratings; null: none")
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
        files = [config.graphs] if config.graphs else caption_files(config.captions)
        # Shards can be hundreds of gigabytes, so only their names and sizes count.
        contents = [f.stat().st_size if f.suffix == ".tar" else file_digest(f) for f in files]
        source = digest([file.name for file in files], contents, config.prefix, SPACY_MODEL)
        ratings = file_digest(config.ratings) if config.ratings else None
        inputs = {"source": source, "ratings": ratings, **config.model_dump(include=RULES)}
        counts = counts_of(folder, inputs)
        if not counts:
            graphs = config.graphs or folder / f"graphs-{source}.jsonl"
            if not graphs.exists():
                parse_captions(files, config.prefix, graphs)
            counts = mine(config, graphs, folder / "triplets.jsonl")
            summary = {"counts": counts, "digest": file_digest(folder / "triplets.jsonl")}
            summary |= {"inputs": inputs, "config": config.model_dump(mode="json")}
            write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    for name, count in counts.items():
        print(f"{name}: {listed(count) if isinstance(count, dict) else count}")
    print(f"triplets: {folder / 'triplets.jsonl'}")


def counts_of(folder: Path, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """What was mined, if the triplets in `folder` are whole. A UserError if they are others."""
    triplets, file = folder / "triplets.jsonl", folder / "summary.json"
    if not file.exists():
        return None
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        same = summary["inputs"] == inputs
    except (ValueError, TypeError, KeyError):
        same = False
    if not same:
        raise UserError(f"{folder} comes from other inputs or settings; take another name=, or "
                        "delete it")  # fmt: skip
    whole = triplets.exists() and file_digest(triplets) == summary["digest"]
    return summary["counts"] if whole else None


def parse_captions(files: list[Path], prefix: str, graphs: Path) -> None:
    """Write the relations of all captions to `graphs`; a killed run's .part file is continued."""
    if next(read_captions(files), None) is None:
        raise UserError(f"{files[0]} holds no captions")
    # All files except shards are read to the end before the long work begins, so that an error in
    # the last line is reported at once.
    shards = any(file.suffix == ".tar" for file in files)
    total = None if shards else sum(1 for _ in read_captions(files))
    parse, part = spacy_parser(), graphs.with_suffix(".part")
    with open(part, "ab+", opener=no_link) as stream:
        stream.seek(0)
        sizes = [len(line) for line in stream if line.endswith(b"\n")]
        done = len(sizes) // BATCH * BATCH  # a resumed run parses the same batches
        stream.truncate(sum(sizes[:done]))
        parsed = parse(itertools.islice(read_captions(files, prefix), done, None))
        for graph in progress(parsed, label="captions", unit="captions", total=total, done=done):
            stream.write(graph.model_dump_json().encode() + b"\n")
    part.replace(graphs)


def mine(config: MineConfig, graphs: Path, triplets: Path) -> dict[str, Any]:
    """Write the file `triplets`, completely or not at all; -> counts of what was mined."""
    records, captions = read_graphs(graphs)
    rating = None
    if config.ratings:
        ratings = read_ratings(config.ratings)
        words = {word for record in records for word in (record.subject, record.object)}
        rating = {word: concreteness(word, ratings) for word in words}
    miner = Miner(records, rating, config.concreteness, config.min_images, config.min_objects)
    mined = 0
    with atomic_path(triplets) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for number in progress(range(config.samples), label="samples", unit="samples"):
            if sample := miner.sample(config.seed, number):
                reference, target, distractor = sample
                triplet = {"reference": reference.image, "target": target.image}
                triplet |= {"condition": f"{target.relation} {target.object}"}
                triplet |= {"distractor": distractor.image, "subject": target.subject}
                stream.write(json.dumps(triplet, ensure_ascii=False) + "\n")
                mined += 1
        if not mined:
            reason = f"not one of {config.samples} samples gave a triplet ({listed(miner.failed)})"
            raise UserError(f"{reason}; give more captions, or loosen the rules")
    images, dropped = len({record.image for record in records}), config.samples - mined
    counts: dict[str, Any] = {"captions": captions, "images": images, "relations": len(records)}
    counts |= {"subjects": miner.subjects, "samples": config.samples, "mined": mined}
    return {**counts, "dropped": dropped, "failed tries": miner.failed}


def listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


@command
def main(argv: list[str]) -> None:
    mine_triplets(load_config(MineConfig, argv, __doc__, unused=("device",)))


if __name__ == "__main__":
    main()
