"""IC|TC: a multimodal language model describes, names and sorts the images; nothing is trained.

Kwon et al., Image Clustering Conditioned on Text Criteria, ICLR 2024, arXiv 2310.18297;
sehyunkwon/ICTC (Apache-2.0). Written from its description; no code is copied.

Each image is described under the criterion; each description gets a label; the labels that are not
rare are merged into K names; each description is given one of them: 3 N + 1 requests.

Differs: one set of prompts for all criteria, where the authors write some for each; labels are rare
in proportion to N (theirs: 15 of some 10,000); an answer that is no name may count as wrong.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from crl.run.answers import without_thoughts
from crl.run.errors import UserError

# Asks many questions, each with the picture of its number, or all without one; "" where a safety
# filter refuses. The seed is for asking the same again.
Ask = Callable[..., list[str]]

DESCRIBE = "Describe the {criterion} of this image in one or two sentences."
LABEL = """\
An image is described: {text}
What is its {criterion}? Answer in one line, with one to three words after "Answer: ".
For the weather of "Wet streets, many umbrellas" the line would be
Answer: rainy"""
MERGE = """\
The {criterion} of many images has these labels, each with the number of images: {counts}
Sort them into {k} categories of {criterion}: merge labels that mean the same, and be neither too \
special nor too general. Give each category a name of one to three words, in lines of this form:
Answer 1: name"""
ASSIGN = """\
An image is described: {text}
To which of these categories of {criterion} does it belong? {names}
If none fits, take the closest. Answer in one line of this form:
Answer: name"""
TRIES = 3  # for K names


class Sorted(NamedTuple):
    """What IC|TC says of N images."""

    clusters: np.ndarray  # (N,) number of a name; K where an unlisted answer counts as wrong
    names: list[str]  # K
    descriptions: list[str]  # N, "" where refused
    unlisted: int  # answers that are none of the names


def sort_images(
    ask: Ask, images: int, criterion: str, k: int, unlisted: Literal["random", "wrong"], seed: int
) -> Sorted:
    """IC|TC on `images` pictures. A UserError if the model does not name K categories."""
    descriptions = ask([DESCRIBE.format(criterion=criterion)] * images, pictures=True)
    seen = [text for text in descriptions if text]
    labels = ask([LABEL.format(text=text, criterion=criterion) for text in seen])
    names = merged(ask, [*map(named, labels)], criterion, k)
    listed = ", ".join(names)
    answers = iter(ask([ASSIGN.format(text=t, criterion=criterion, names=listed) for t in seen]))
    chosen = [named(next(answers)) if text else "" for text in descriptions]
    clusters, others = assigned(chosen, names, unlisted, seed)
    return Sorted(clusters, names, descriptions, others)


def merged(ask: Ask, labels: Sequence[str], criterion: str, k: int) -> list[str]:
    """K names for the labels of N images."""
    counts = Counter(filter(None, labels)).most_common()
    often = [(label, n) for label, n in counts if n > max(1, round(0.0015 * len(labels)))]
    listed = dict(often if len(often) >= k else counts)
    for seed in range(TRIES):
        (answer,) = ask([MERGE.format(criterion=criterion, counts=listed, k=k)], seed=seed)
        lines = [line for line in without_thoughts(answer).splitlines() if ":" in line]
        names = [*dict.fromkeys(filter(None, map(named, lines)))]
        if len(names) == k:
            return names
    raise UserError(f"{criterion}: the model was asked for {k} names and gave {len(names)}, "
                    f"{TRIES} times; the last: {answer[:100]!r}")  # fmt: skip


def named(answer: str) -> str:
    """The name in `Answer: name`: after the first colon of the last line that has one, or all of
    an answer without; lower case, without commas, quotes and full stops."""
    text = without_thoughts(answer).strip()
    lines = [line.partition(":")[2] for line in text.splitlines() if ":" in line]
    name = lines[-1] if lines else text
    return " ".join(re.sub("[\"'“”‘’,.*]", "", name.lower()).split())


def assigned(
    chosen: Sequence[str], names: list[str], unlisted: Literal["random", "wrong"], seed: int
) -> tuple[np.ndarray, int]:
    """The number (N,) of each chosen name, and how many are none: a random number, or K."""
    numbers = {name: number for number, name in enumerate(names)}
    clusters = np.array([numbers.get(name, len(names)) for name in chosen])
    others = clusters == len(names)
    if unlisted == "random":
        clusters[others] = np.random.default_rng(seed).integers(len(names), size=others.sum())
    return clusters, int(others.sum())
