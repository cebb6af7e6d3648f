"""Draw figures/idea.png: the same pictures, seen under three criteria.

    python scripts/demo/draw_idea.py

It uses pictures of the Clevr4 demo world, the text bases in configs/bases/ and the demo VLM. Every
number in the heat maps is an entry of R = I Tᵀ.
"""

from crl.run.command import command

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from worlds import clevr4

from crl.basis import TextBasis
from crl.embed import embed_images, embed_texts
from crl.projection import project
from crl.run.errors import ArgumentParser
from crl.run.files import atomic_path
from crl.vlm import load_vlm

REPOSITORY = Path(__file__).resolve().parents[2]

SHOWN = [
    {"texture": "rubber", "shape": "cube", "color": "red", "count": "3"},
    {"texture": "star", "shape": "cube", "color": "blue", "count": "8"},
    {"texture": "metal", "shape": "star", "color": "blue", "count": "3"},
    {"texture": "checkered", "shape": "star", "color": "yellow", "count": "8"},
    {"texture": "zigzag", "shape": "torus", "color": "red", "count": "1"},
]
TEXTS = {
    "shape": "cube-shaped|boxy|star-shaped|shaped like a star|ring-shaped|donut-shaped".split("|"),
    "color": "red|crimson|blue|royal blue|yellow|lemon yellow".split("|"),
    "count": "one|a single one|three|a trio|seven|eight".split("|"),
}


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "figures/idea.png", help="a PNG")
    out = parser.parse_args(argv).out
    pictures = [clevr4.draw(facts, np.random.default_rng(i + 10)) for i, facts in enumerate(SHOWN)]
    vlm = load_vlm("demo")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.png" for i in range(len(pictures))]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        image = embed_images(vlm, paths, cache=None).image  # I, (N, D)

    figure = plt.figure(figsize=(11, 5.2), layout="constrained")
    grid = figure.add_gridspec(len(SHOWN), 4, width_ratios=[1.2, 2, 2, 2])
    for row, picture in enumerate(pictures):
        axis = figure.add_subplot(grid[row, 0])
        axis.imshow(picture)
        axis.axis("off")
        if row == 0:
            axis.set_title("images\n→ VLM → I", fontsize=11)
    for column, (criterion, texts) in enumerate(TEXTS.items(), start=1):
        basis = TextBasis.load(f"clevr4_{criterion}")
        text = embed_texts(vlm, basis.prompts, cache=None)  # T, (K, D)
        r = project(image, text)  # R = I Tᵀ, (N, K)
        some = r[:, [basis.texts.index(one) for one in texts]]
        axis = figure.add_subplot(grid[:, column])
        axis.imshow(some, cmap="magma", aspect="auto")
        axis.set_xticks(range(len(texts)), texts, rotation=35, ha="right")
        axis.set_yticks([])
        title = f"“{criterion}” → LLM → {len(basis.texts)} texts\n→ VLM → T, R = I Tᵀ (six columns)"
        axis.set_title(title, fontsize=11)
        for (i, j), value in np.ndenumerate(some):
            color = "black" if value > (some.max() + some.min()) / 2 else "white"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=8)
    with atomic_path(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


if __name__ == "__main__":
    main()
