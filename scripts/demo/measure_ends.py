"""Is "about 37 pictures match" true? Measured on the demo's worlds, whose drawings are known.

    python scripts/demo/measure_ends.py

A query is a value of a criterion, by two of its phrases, in four collections: the pictures as
drawn, those with only 12 that match, with none, and those of another world. `told`: the share of
queries that get a number; `FDR`: the share of counted pictures that do not match, the mean and the
worst (where none matches, no number is no error). Beside the rule: pictures above one cosine, and
those whose probability over the texts is a tenth of the best one's or more (min-p). 0.42 and a
tenth are those with an FDR of 10 percent on Clevr4 as drawn.
"""

from crl.run.command import command

import importlib

import numpy as np
import pandas as pd
import torch
from worlds import WORLDS

from crl.basis import TextBasis
from crl.embed import embed_basis, embed_texts
from crl.explore.ends import count_matches
from crl.explore.words import probabilities, standing
from crl.projection import l2
from crl.run.errors import ArgumentParser, whole_number
from crl.run.tables import Table
from crl.vlm import load_vlm

BASES = {"cards": "cards", "clevr4": "clevr4", "garments": "deepfashion", "scenes": "genecis"}


def choices(scores: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray | None]:
    """Which pictures match, (N,), by each rule; None: it cannot be told."""
    number = count_matches(scores, texts).number
    p = probabilities(standing(np.column_stack([scores, texts])))[:, 0]
    rule = None if number is None else scores >= np.sort(scores)[-number]
    return {"rule": rule, "cosine": scores > 0.42, "min-p": p >= 0.1 * p.max()}


def draw(vlm, world: str, images: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Facts, a column per attribute, and I (N, D) of fresh drawings."""
    module = importlib.import_module(f"worlds.{world}")
    generators = [np.random.default_rng([77, number]) for number in range(images)]
    facts = [module.sample(rng) for rng in generators]
    drawings = map(module.draw, facts, generators)
    with torch.no_grad():
        parts = [vlm.encode_images(vlm.preprocess(drawing)[None]) for drawing in drawings]
    return pd.DataFrame(facts), l2(torch.cat(parts).numpy())


def measure(vlm, world: str, facts: pd.DataFrame, image: np.ndarray, other: np.ndarray):
    """For each query, collection and rule: told, FDR twice, recall."""
    for name, classes in importlib.import_module(f"worlds.{world}").PHRASES.items():
        basis = TextBasis.load(f"{BASES[world]}_{'object' if 'yes' in classes else name}")
        text = embed_basis(vlm, basis)
        for value, phrases in classes.items():
            for phrase in phrases[:2]:
                match = (facts[name] == value).to_numpy()
                few = ~match | (match.cumsum() <= 12)
                sets = {"as drawn": (image, match), "12 match": (image[few], match[few])}
                sets["none"] = image[~match], match[~match]
                if other is not image:
                    sets["other world"] = other, np.zeros(len(other))
                asked = embed_texts(vlm, [basis.vlm_prompt.replace("{text}", phrase)])[0]
                for collection, (some, truth) in sets.items():
                    for rule, chosen in choices(some @ asked, some @ text.T).items():
                        told, total = chosen is not None, truth.sum()
                        wrong = 1 - truth[chosen].mean() if told and chosen.any() else 0.0
                        wrong = wrong if told or not total else np.nan
                        recall = truth[chosen].sum() / total if told and total else np.nan
                        yield world, collection, rule, told, wrong, wrong, recall


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--images", type=whole_number, default=1000, help="drawn for each world")
    args = parser.parse_args(argv)
    vlm = load_vlm("demo", "cpu", "fp32")
    drawn = {world: draw(vlm, world, args.images) for world in args.worlds}
    others = np.roll(args.worlds, 1)  # of one world alone: itself
    rows = []
    for world, other in zip(args.worlds, others, strict=True):
        rows += measure(vlm, world, *drawn[world], drawn[other][1])
    columns = ["world", "collection", "", "told", "FDR", "worst", "recall"]
    table = pd.DataFrame(rows, columns=columns).groupby(columns[:3], sort=False)
    means = table.agg({"told": "mean", "FDR": "mean", "worst": "max", "recall": "mean"})
    cells = [[*row[0], *(f"{number:.2f}" for number in row[1:])] for row in means.itertuples()]
    print(Table("Where results end, stated: at most 0.10 wrong", columns, cells, left=3).text())


if __name__ == "__main__":
    main()
