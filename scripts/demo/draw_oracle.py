"""Draw an oracle for CIG on the scenes demo world: images of the renderer, not of a model.

    python scripts/demo/draw_oracle.py --scenes data/demo/genecis --out data/demo/oracle

For each reference and condition of the object tasks: the reference's scene with the condition in
it, and nothing else, as a new drawing. They stand for a generator that makes no mistake: what they
give says what the fusion can do with such images, and is no result of CIG.
"""

from crl.run.command import command

import json
from pathlib import Path

import numpy as np
from worlds.scenes import VAL, _sample, draw, kinds

from crl.run.errors import ArgumentParser, UserError
from crl.run.files import alone_in, atomic_path
from crl.run.progress import progress
from similarity_retrieval.datasets import TASKS, load
from similarity_retrieval.rivals.cig import file_name

ORACLE = 5  # second word of the seeds, beside those of worlds/scenes.py


def draw_oracle(scenes: Path, out: Path) -> None:
    if not (label := scenes / ".drawn.json").is_file():
        raise UserError(f"{scenes} holds no scenes of make_data.py")
    drawn, data = json.loads(label.read_text()), load(TASKS[:2], scenes)
    seed, sizes = drawn["seed"], kinds(drawn["images"])
    order = sorted(int(file.stem) for file in (scenes / "coco/val2017").glob("*.jpg"))
    pairs = np.concatenate([templates.pairs[0] for templates in data.tasks.values()])
    for image, c in progress(np.unique(pairs, axis=0), label="oracle", unit="images"):
        number, condition = int(data.ids[image]), data.conditions[c]
        scene = _sample(np.random.default_rng([seed, VAL, order.index(number)]), *sizes)["scene"]
        rng = np.random.default_rng([seed, ORACLE, number, c])
        picture = draw({"scene": scene, condition: "yes"}, rng)
        with atomic_path(out / file_name(data.ids[image], condition)) as temporary:
            picture.save(temporary, "PNG")


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=Path, default=Path("data/demo/genecis"), help="the scenes")
    parser.add_argument("--out", type=Path, default=Path("data/demo/oracle"), help="folder")
    arguments = parser.parse_args(argv)
    with alone_in(arguments.out, outputs=False):
        draw_oracle(arguments.scenes, arguments.out)


if __name__ == "__main__":
    main()
