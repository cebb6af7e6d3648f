"""Draw the demo data sets, in the official file formats of the real data sets.

    python scripts/demo/make_data.py --out data/demo --images 3000

The same seed gives the same pictures, with any number of workers. A data set that already exists
with this size and seed is not drawn again.
"""

from crl.run.command import command

import importlib
import json
import shutil
import tempfile
from pathlib import Path

from worlds import WORLDS

from crl.run.config import LARGEST
from crl.run.errors import ArgumentParser, UserError, nearest
from crl.run.files import alone_in, write_text

LABEL = ".drawn.json"  # in a data set: what it was drawn with
DRAWING = 2  # increase this number when a world writes other files than before


def make(world: str, out: Path, images: int, seed: int, workers: int) -> None:
    """Draw one world into `out`, completely or not at all."""
    label = {"images": images, "seed": seed, "drawing": DRAWING}
    module = importlib.import_module(f"worlds.{world}")
    target = out / module.DATASET
    done = target / LABEL
    if target.exists() and done.exists() and json.loads(done.read_text()) == label:
        print(f"{world}: {images} images are already in {out}")
        return
    if target.exists() and not done.exists():
        raise UserError(f"{target} was not made by this script; choose another --out")
    for leftover in out.glob(f".{world}.*"):  # of a killed run
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{world}.") as folder:
        module.write(Path(folder), images, seed, workers)
        write_text(Path(folder) / module.DATASET / LABEL, json.dumps(label))
        shutil.rmtree(target, ignore_errors=True)
        (Path(folder) / module.DATASET).rename(target)
    print(f"{world}: drew {images} images into {out}")


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    add, worlds = parser.add_argument, ", ".join(WORLDS)
    add("--out", type=Path, default=Path("data/demo"), help="folder to draw into")
    add("--worlds", nargs="+", default=list(WORLDS), help=f"which of {worlds}")
    add("--images", type=int, default=3000, help="pictures per world")
    add("--seed", type=int, default=0, help="another seed draws other pictures")
    add("--workers", type=int, default=0, help="processes; 0: one per core")
    arguments = parser.parse_args(argv)
    for world in arguments.worlds:
        if world not in WORLDS:
            raise UserError(f"unknown world {world!r}; {nearest(world, WORLDS)}")
    for name, least, most in (("images", 1, 10**6), ("workers", 0, 256), ("seed", 0, LARGEST)):
        if not least <= (given := getattr(arguments, name)) <= most:
            raise UserError(f"--{name} must be at least {least} and at most {most}, not {given}")
    with alone_in(arguments.out, outputs=False):
        for world in arguments.worlds:
            make(world, arguments.out, arguments.images, arguments.seed, arguments.workers)


if __name__ == "__main__":
    main()
