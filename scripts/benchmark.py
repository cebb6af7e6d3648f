"""Measure the cost of this code in addition to the model: ratios, both sides measured in one run.

    python scripts/benchmark.py                     # all measurements; minutes on 2 CPU cores
    python scripts/benchmark.py --only path step    # some of them
    python scripts/benchmark.py --genecis FOLDER    # with GeneCIS's focus_ and change_object.json
    python scripts/benchmark.py --quick             # tiny sizes, to see that it runs
    python scripts/benchmark.py --only path trainings --precision bf16 --workers 16    # on a GPU

Models have the real architecture (ViT-B/32) and random weights, which do not affect the speed.
Where only memory or the number of encoded images is measured, a tiny model is used. Both sides of a
ratio must give the same results, else the script stops. Run it on an idle machine.
"""

from crl.run.command import command

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measurements import embedding, scale, tasks
from measurements.common import QUICK, Bench, Sizes

from crl.backends.loaded import PRECISIONS
from crl.run.errors import ArgumentParser, UserError, nearest
from crl.run.tables import aligned

MEASUREMENTS: dict[str, Callable[[Bench], list[str]]] = {
    measure.__name__: measure
    for measure in (
        embedding.cache, embedding.path, embedding.posterior, embedding.explore,
        embedding.embedding_memory, tasks.ranking_memory, tasks.encodes, tasks.scoring,
        tasks.ranking, tasks.step, tasks.trainings,
        scale.known, scale.store, scale.search, scale.clusters, scale.ray,
    )
}  # fmt: skip
IN_OWN_PROCESS: dict[str, Callable[..., Any]] = {
    measure.__name__: measure
    for measure in (
        embedding.embed_many, tasks.rank_many, scale.find_known, scale.open_stored,
        scale.write_index, scale.search_exactly, scale.search_otherwise, scale.cluster_rows,
    )
}  # fmt: skip
NEED_GENECIS = {"encodes", "scoring"}


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of {', '.join(MEASUREMENTS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--genecis", type=Path, metavar="FOLDER", help="its two object tasks")
    parser.add_argument("--precision", choices=list(PRECISIONS), default="fp32", help="of `path`")
    parser.add_argument("--workers", type=int, help="threads that decode images, of `path`")
    parser.add_argument("--in-own-process", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.in_own_process:
        name, *values = arguments.in_own_process
        print(json.dumps(IN_OWN_PROCESS[name](*values)))
        return
    for name in arguments.only or []:
        if name not in MEASUREMENTS:
            raise UserError(f"unknown measurement {name!r}; {nearest(name, MEASUREMENTS)}")
    rows, sizes = [], QUICK if arguments.quick else Sizes()
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work), sizes, arguments)
        for name, measure in MEASUREMENTS.items():
            if arguments.only and name not in arguments.only:
                continue
            if name in NEED_GENECIS and not arguments.genecis:
                print(f"{name}: skipped, it needs --genecis FOLDER")
                continue
            if name == "ray" and not scale.RAY:
                print("ray: skipped, it needs pip install -e '.[ray]'")
                continue
            print(f"measuring {name} ...", flush=True)
            rows.append(measure(bench))
    model = "tiny model, sizes that say nothing" if arguments.quick else "ViT-B/32"
    title = f"{model}, random weights, {torch.get_num_threads()} threads"
    print(aligned(title, ["measurement", "what is compared", "sides", "measured"], rows, left=3))


if __name__ == "__main__":
    main()
