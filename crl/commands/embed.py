"""Embed very many images on all GPUs of a machine or of a cluster, with Ray Data.

    crl embed --images ~/pictures --vlm clip --out embeddings
    crl embed --images list.txt --vlm clip --out embeddings
    crl embed --images s3://bucket/prefix --vlm clip --out /shared/embeddings \\
        --precision bf16 --address auto

Workers, each with one GPU or else two cores, take 8 batches of the sorted list at a time and append
to one store below --out, which all machines share (crl/run/store.py). At the end --out also holds
images.parquet, the list of what was embedded, and unreadable.csv. `crl explore` takes the folder as
its own; tasks take it as cache=DIR, if it was made as they embed: --precision fp32 --decode full. A
killed worker is replaced, and gets the same images. The same command again goes on where a killed
one stopped: what is stored is not embedded again.

On a CPU the numbers are those of `embed_images` with the same batch size and number of threads, to
the bit, if no image is unreadable or twice in the list.
"""

from crl.run.command import command

import argparse
import json
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from crl.backends.loaded import DECODES, LoadedVLM
from crl.embed import NoneReadable, embed_images
from crl.explore.listing import find_images, open_file, without_keys, write_listing
from crl.images import shown
from crl.run.distributed import available_device
from crl.run.errors import ArgumentParser, Missing, UserError, advice, whole_number
from crl.run.files import HOST, alone_in, write_text
from crl.run.progress import progress
from crl.run.tables import Table
from crl.vlm import load_vlm

BATCHES = 8  # that a worker takes at a time
CORES = 2  # per worker without a GPU
WAITING = 64  # threads of a worker that reads from an object store: they mostly wait for it


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--images", required=True, metavar="DIR|LIST.txt|s3://BUCKET/PREFIX")
    add("--vlm", default="clip", help="see the README (default: %(default)s)")
    add("--out", type=Path, required=True, help="a folder that all machines share")
    add("--decode", default="fast", choices=DECODES, help="large pictures (default: %(default)s)")
    add("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"],
        help="auto: bf16 if the device computes in it and embeddings stay the same")  # fmt: skip
    add(
        "--batch-size", type=whole_number, default=256, help="images at once (default: %(default)s)"
    )
    add("--address", help="of a Ray cluster: auto, or host:port (default: this machine)")
    add("--workers", type=whole_number, help="default: one per GPU, or two cores without GPUs")
    add("--device", choices=["cpu", "cuda", "mps"], help="default: CUDA if there is a GPU")
    args = parser.parse_args(argv)
    if args.address is None:  # of a cluster, each worker looks for its own
        args.device = available_device(args.device).type
    names, root = find_images(args.images)
    print(f"{without_keys(args.images)}: {len(names):,} images", flush=True)
    with alone_in(args.out):
        embed(args, names, root)


def embed(args: argparse.Namespace, names: list[str], root: str) -> None:
    """Embed the images, and write the list of them."""
    # A wrong name is noticed before Ray starts. What `auto` means is settled for all workers.
    vlm = load_vlm(args.vlm, args.device or "cpu", args.precision, decode=args.decode)
    if args.precision == "auto":
        args.precision = vlm.precision if isinstance(vlm, LoadedVLM) else "fp32"
    about = {name: getattr(args, name) for name in ("vlm", "precision", "decode")}
    about["fingerprint"] = vlm.fingerprint
    del vlm  # the workers need its memory
    paths, digests, unreadable = [], [], []
    size = BATCHES * args.batch_size
    with progress(label="images", unit="images", total=len(names), batch=size) as bar:
        for part in run(args, names, root, about["fingerprint"]):
            if part["error"]:
                raise UserError(part["error"])
            paths += part["paths"]
            digests += map(bytes.fromhex, part["digests"])
            unreadable += part["unreadable"]
            bar.update(len(part["paths"]) + len(part["unreadable"]))
    table = Table("", ["path", "reason"], unreadable).csv()
    write_text(args.out / "unreadable.csv", f"{table}\n")
    if not paths:
        raise UserError(f"none of {len(names):,} images can be read, the first: {unreadable[0]}")
    write_listing(args.out / "images.parquet", paths, digests, about | {"root": root})
    more = f"; {len(unreadable):,} could not be read, see {args.out / 'unreadable.csv'}"
    print(f"{args.out}: {len(paths):,} images are embedded{more if unreadable else ''}")


class Embedder:
    """A worker: it loads the VLM once and appends the embeddings of its images to the store."""

    def __init__(self, args: argparse.Namespace, root: str, fingerprint: str, threads: int) -> None:
        self.args, self.root, self.threads = args, root, threads
        self.vlm = load_vlm(args.vlm, args.device, args.precision, decode=args.decode)
        self.same = self.vlm.fingerprint == fingerprint

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list]:
        """Ray Data's batch, the joined names of some images -> paths, digests, unreadable (name and
        reason of each), and error: what went wrong."""
        part: dict[str, Any] = {"paths": [], "digests": [], "unreadable": [], "error": ""}
        try:
            if not self.same:
                raise UserError("its weights differ from those where the run started")
            names = os.fsdecode(bytes(batch["names"][0])).split("\0")
            files: dict[Any, str] = {open_file(n, self.root, self.args.images): n for n in names}
            how = self.args.out.resolve(), self.args.batch_size, self.threads
            embedded = embed_images(self.vlm, list(files), *how, unreadable="skip")
            part["paths"] = [shown(names[i]) for i in embedded.kept]
            part["digests"], unreadable = embedded.digests.tolist(), embedded.unreadable
        except NoneReadable as error:
            unreadable = error.unreadable
        except Exception as error:
            if (message := advice(error)) is None:  # a bug
                raise
            part["error"], unreadable = f"a worker on {HOST}: {message}", {}
        part["unreadable"] = [[shown(files[file]), reason] for file, reason in unreadable.items()]
        return {"part": [json.dumps(part, default=bytes.hex)]}


def run(
    args: argparse.Namespace, names: list[str], root: str, fingerprint: str
) -> Iterator[dict[str, Any]]:
    """Have Ray's workers embed the images; yield what each part of them gives, in order."""
    ray = start_ray(args.address)
    try:
        size = BATCHES * args.batch_size
        parts = [names[start : start + size] for start in range(0, len(names), size)]
        gpus, cores = (int(ray.cluster_resources().get(kind, 0)) for kind in ("GPU", "CPU"))
        gpus = gpus if args.device in (None, "cuda") else 0
        workers = min(args.workers or gpus or max(1, cores // CORES), gpus or cores, len(parts))
        each = max(1, min(CORES, cores // workers))
        reports = ray.data.from_items(
            [{"names": os.fsencode("\0".join(part))} for part in parts],
            override_num_blocks=len(parts),
        ).map_batches(
            Embedder,
            fn_constructor_args=(args, root, fingerprint, WAITING if "://" in names[0] else each),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if gpus else 0,
            num_cpus=each,
        )
        share = "one GPU" if gpus else f"{each} core(s)"
        print(f"workers: {workers}, each with {share}", flush=True)
        yield from (json.loads(row["part"]) for row in reports.iter_rows())
    finally:
        ray.shutdown()


def start_ray(address: str | None) -> Any:
    """Ray, connected to a cluster or started on this machine; it sends no statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise Missing("Ray Data is not installed: pip install 'ray[data]>=2.60'") from None
    # Python's stderr goes on; what Ray's C++ part writes there, past Python, goes nowhere.
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    host, _, port = (address or "").rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray waits for minutes
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of many kinds: another version of Ray or Python, ...
        wrong, advice = "cannot start Ray on this machine", "give the command again"
        if address:
            wrong = f"cannot join a Ray cluster at {address}"
            advice = "`ray start --head` starts one"
        raise UserError(f"{wrong}: {shorten(str(error), 300)}; {advice}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray
