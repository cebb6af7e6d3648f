"""Quality against cost, of models that are told words and of models that are told the criterion.

    python scripts/demo/make_data.py --out data/demo
    python scripts/demo/draw_costs.py --error 0.1 --seconds 1

Clusters Clevr4's drawn world with I, R and its posterior; with an embedder that is told the
criterion; with captions that are embedded; and with IC|TC. The last three need large models. A
STAND-IN takes their place: it answers from the drawings' true labels, at random for a share --error
of the pictures, and each request is said to take --seconds. This shows the harness, not a model.

Prints mean NMI over the four criteria, and seconds per 1,000 images and criterion, measured for I
and R; draws <out>/costs.png.
"""

from crl.run.command import command

import re
import tempfile
from base64 import b64decode
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np

from classification_clustering import ask, clustering
from classification_clustering.config import EvaluateConfig
from classification_clustering.datasets import CLEVR4_CLASSES, load
from crl.backends import served
from crl.run.chat import Server, as_jpeg
from crl.run.errors import ArgumentParser
from crl.run.files import atomic_path
from crl.run.store import content_digest
from crl.run.tables import Table

REQUESTS = {"instructed": 1, "captions": 1, "ictc": 3}  # of an image under a criterion
NAMES = [name for names in CLEVR4_CLASSES.values() for name in names]


class StandIn(Server):
    """Answers from the true labels: {digest of a sent picture: {criterion: class}}."""

    truth: dict[bytes, dict[str, str]]

    def answer(self, prompt: str, read: Any, *, pictures: Any = (), **how: Any) -> Any:
        if pictures:
            criterion = prompt.split()[2]  # Describe the color ...
            name = self.truth[content_digest(pictures[0])][criterion]
            return f"It has the {criterion} {name}.", {}
        if number := re.search(r"into (\d+) categories", prompt):
            labels = re.findall(r"'(\w+)': \d", prompt)[: int(number[1])]
            return "\n".join(f"Answer {i}: {label}" for i, label in enumerate(labels)), {}
        return "Answer: " + re.search(r"It has the \w+ (\w+)\.", prompt)[1], {}

    def embedding(self, messages: Any, model: str, **options: Any) -> Any:
        url = messages[1]["content"][0]["image_url"]["url"]
        criterion = messages[0]["content"][0]["text"].split()[-1].rstrip(".")
        picture = self.truth.get(content_digest(b64decode(url.partition(",")[2])), {})
        return {"data": [{"embedding": [float(n == picture.get(criterion)) + 0.01 for n in NAMES]}]}


def answers(root: Path, error: float) -> dict[bytes, dict[str, str]]:
    """What the stand-in says of each picture."""
    rng, truth = np.random.default_rng(0), defaultdict(dict)
    for criterion, names in CLEVR4_CLASSES.items():
        data = load("clevr4", root, criterion)
        for file, label in zip(data.paths, data.labels, strict=True):
            wrong = rng.random() < error
            name = names[rng.integers(len(names))] if wrong else data.classes[label]
            truth[content_digest(as_jpeg(ask.picture(file)))][criterion] = name
    return truth


def measure(root: Path, out: Path, model: str, seconds: float) -> dict[str, tuple[float, float]]:
    """Of each method the mean NMI, and the seconds per 1,000 images and criterion."""
    criteria, url = [*CLEVR4_CLASSES], "http://localhost:1/v1"
    with tempfile.TemporaryDirectory() as cache:  # a new one: what is kept takes no time
        how: dict[str, Any] = {"data": "clevr4", "root": root, "criteria": criteria, "cache": cache}
        how |= {"outputs": out, "name": "costs", "vlm": ["demo"], "figures": False}
        folders = []
        for method in ("captions", "ictc"):
            asked = {**how, "name": method, "method": method, "base_url": url, "model": model}
            ask.run(ask.AskConfig.model_validate(asked))
            folders += [out / "clustering_rivals" / method / criterion for criterion in criteria]
        how |= {"rivals": folders, "instructed": [f"{url}#{model}"], "seeds": 5}
        how["representation"] = ["paper", "posterior"]
        rows = clustering.evaluate(EvaluateConfig.model_validate(how)).rows
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if "nmi" in row["scores"]:
            method = row["about"]["method"]
            spent = row.get("seconds_per_1000", 0) / len(criteria)  # one pass serves all criteria
            cost = 1000 * REQUESTS[method] * seconds if method in REQUESTS else spent
            scores[method].append((row["scores"]["nmi"]["mean"], cost))
    return {method: tuple(np.mean(pairs, axis=0)) for method, pairs in scores.items()}


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="of make_data.py")
    parser.add_argument("--error", type=float, default=0.1, help="share of random answers")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a request, as is assumed")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder")
    arguments = parser.parse_args(argv)
    StandIn.truth = answers(arguments.root, arguments.error)
    probes = patch.object(served, "FINGERPRINTS", arguments.out / "costs")
    with probes, patch.object(ask, "Server", StandIn), patch.object(served, "Server", StandIn):
        model = f"stand-in-{arguments.error:g}"
        points = measure(arguments.root, arguments.out, model, arguments.seconds)
    marked = {m: f"{m} (stand-in)" if m in REQUESTS else m for m in points}
    rows = [[marked[m], f"{nmi:.1f}", f"{cost:.1f}"] for m, (nmi, cost) in points.items()]
    title = f"STAND-IN: true labels, {arguments.error:.0%} at random; {arguments.seconds:g} s each"
    print(Table(title, ["method", "NMI", "s/1,000"], rows, left=1).text())
    figure, axes = plt.subplots(figsize=(6, 4))
    for number, (method, (nmi, cost)) in enumerate(points.items()):
        axes.scatter(cost, nmi, marker="x" if method in REQUESTS else "o")
        beside = 4, 10 - 10 * (number % 3)  # two may have the same place
        axes.annotate(method, (cost, nmi), xytext=beside, textcoords="offset points")
    axes.set(xscale="log", xlabel="seconds per 1,000 images and criterion", ylabel="NMI, percent")
    axes.set_title(title, fontsize=9)
    with atomic_path(arguments.out / "costs.png") as temporary:
        figure.savefig(temporary, dpi=150, format="png", bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
