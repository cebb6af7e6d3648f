"""Embed very many images on all GPUs of a machine or of a cluster, with Ray Data.

    python scripts/embed_ray.py --images ~/pictures --vlm clip --out embeddings
    python scripts/embed_ray.py --images list.txt --vlm clip --out embeddings
    python scripts/embed_ray.py --images s3://bucket/prefix --vlm clip --out /shared/embeddings \\
        --precision bf16 --address auto

The sorted list of images is cut into parts of 8 batches. The worker that embeds part 3 writes it as
part-000003.parquet. A worker takes one GPU, or two cores where there is no GPU. At the end, --out
also holds unreadable.csv and manifest.json, which comes last: where it is, all parts are complete.

The same command again goes on where a killed one stopped. If the list has changed, only the parts
that differ are made again. A file that has changed under the same name is not noticed.

On a CPU the numbers are those of `embed_images` with the same batch size and number of threads,
to the bit. Where an image is unreadable, or twice in the list, later batches hold other images, so
that the last digits may differ.

Columns: path (relative to the folder, or as in the list), digest (16 bytes of the content), width
and height in pixels as shown, embedding (not normalised; float32, or float16 after fp16 and bf16).
"""

from crl.run.command import advice, command

import argparse
import csv
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from pyarrow.fs import FileSelector, FileSystem, FileType

from crl.embed import NoneReadable, embed_images
from crl.images import EXTENSIONS, RemoteFile, image_files, shown
from crl.run.cache import content_digest
from crl.run.errors import ArgumentParser, UserError
from crl.run.files import HOST, alone_in, atomic_path, remove_leftovers, write_text
from crl.run.parquet import FORMAT
from crl.run.progress import progress
from crl.vlm import VLM, load_vlm
from crl.vlm.contract import PRECISIONS

BATCHES = 8  # per part
ROWS = 4096  # per row group
CORES = 2  # per worker without a GPU
WAITING = 64  # threads of a worker that reads from an object store: they mostly wait for it


@command
def main(argv: list[str]) -> None:
    args = parse(argv)
    import_ray()
    images = find_images(args.images)
    print(f"{without_keys(args.images)}: {len(images.names):,} images", flush=True)
    print("\n".join(embed(images, args.out, args.vlm, args.precision, args.batch_size,
                          args.address, args.workers)))  # fmt: skip


def embed(
    images: "Images",
    out: Path,
    vlm: str,
    precision: str,
    batch_size: int,
    address: str | None = None,
    workers: int | None = None,
) -> list[str]:
    """Embed all parts that `out` does not hold yet; -> what there is to say about it, in lines.

    Args:
        address: of a Ray cluster; None: this machine.
        workers: None: one per GPU, or per two cores where there is no GPU.

    Raises:
        UserError: unknown VLM; `out` holds something else; no such cluster; what a worker met.
    """
    about = describe(vlm, precision)
    job = Job(vlm, precision, batch_size, out.resolve(), images.root, images.store, about)
    parts = cut(images.names, batch_size, images.root)
    with alone_in(job.out):
        done = finished(job, parts)
        todo = [part for part in parts if part.number not in done]
        before, start = sum(done.values()), time.perf_counter()
        if todo:
            (job.out / "manifest.json").unlink(missing_ok=True)
            total, label = len(images.names), "images"
            with (
                silent_c(),
                cluster(address) as ray,
                progress(label=label, unit=label, total=total, done=before) as bar,
            ):
                for number in run_parts(ray, job, todo, workers):
                    if read_part(job.file(number)) is None:
                        raise UserError(
                            f"{job.file(number)} was written by a worker, but is not there: all "
                            "machines of the cluster must share --out"
                        )
                    bar.update(parts[number].images)
        seconds = time.perf_counter() - start
        new = len(images.names) - before
        lines = [f"{new:,} images in {seconds:.1f} s: {new / seconds:,.0f} per second"]
        return [*(lines if todo else []), *write_results(job, parts)]


# ---- images and parts ---------------------------------------------------------------------------


class Images(NamedTuple):
    """Names of images, sorted; `root`: the folder of those that are relative; `store`: the URI
    that says how to reach the object store, if the names were listed from one."""

    names: list[str]
    root: str
    store: str = ""


def find_images(where: str) -> Images:
    """The images in a folder, in a list with a name per line, or below an object store's prefix.

    Raises:
        UserError: none there; a file of the list is missing; a store that does not answer.
    """
    if "://" in where:
        return Images(remote_names(where), "", where)
    place = Path(where).expanduser()
    if place.is_dir() or not place.exists():
        place = place.resolve()
        names = [str(file.relative_to(place)) for file in image_files(place)]
        return Images(names, str(place))
    lines = place.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    names = sorted(line for line in lines if line)
    if not names:
        raise UserError(f"{place} names no images; write one on each line")
    missing = [name for name in names if "://" not in name and not os.path.isfile(name)]
    if missing:
        raise UserError(
            f"{place}: {len(missing):,} of {len(names):,} files are missing, the first: "
            f"{shown(missing[0])}"
        )
    return Images(names, str(Path.cwd()))


def remote_names(uri: str) -> list[str]:
    """`s3://bucket/key` of each image below `s3://bucket/prefix`, told by the ending of its name.

    Raises:
        UserError: none there; or the store does not answer.
    """
    store, prefix = object_store(uri)
    try:
        found = store.get_file_info(FileSelector(prefix, recursive=True))
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise UserError(f"cannot list {without_keys(uri)}: {shorten(str(error), 300)}") from error
    names = [f"{store.type_name}://{info.path}" for info in found if info.type == FileType.File]
    names = [name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS]
    if not names:
        raise UserError(f"there are no images in {without_keys(uri)}")
    return sorted(names)


def object_store(uri: str) -> tuple[FileSystem, str]:
    """The object store of `s3://bucket/prefix?options`, and bucket/prefix.

    Raises:
        UserError: no such kind of store; or it does not answer.
    """
    try:
        return FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"cannot reach {without_keys(uri)}: {shorten(str(error), 300)}") from error


def without_keys(uri: str) -> str:
    """A URI to show, without the keys and options that it may hold; a path as it is."""
    if "://" not in uri:
        return uri
    return re.sub("//[^/]*@", "//", uri.partition("?")[0])


class Part(NamedTuple):
    """The images of one file: their names, joined by zero bytes, and what tells a part apart."""

    number: int
    names: bytes
    images: int
    digest: str


def cut(names: list[str], batch_size: int, root: str) -> list[Part]:
    """Parts of `BATCHES` batches, so that their batches are those of the whole list."""
    size, parts = BATCHES * batch_size, []
    for number, start in enumerate(range(0, len(names), size)):
        mine = names[start : start + size]
        joined = os.fsencode("\0".join(mine))
        key = f"{batch_size}\0".encode() + os.fsencode(root) + b"\0" + joined
        parts.append(Part(number, joined, len(mine), content_digest(key).hex()))
    return parts


# ---- what a worker does -------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What all workers need to know. `about`: what the manifest says about the VLM."""

    vlm: str
    precision: str
    batch_size: int
    out: Path
    root: str
    store: str
    about: dict[str, Any]

    def file(self, number: int) -> Path:
        """Where a part is written."""
        return self.out / f"part-{number:06}.parquet"


def describe(name: str, precision: str) -> dict[str, Any]:
    """What the manifest says about a VLM.

    Raises:
        UserError: no such VLM.
    """
    vlm = load_vlm(name, "cpu", precision)
    blank = vlm.preprocess(Image.new("RGB", (64, 64)))
    return {
        "fingerprint": vlm.fingerprint,
        "vlm": name,
        "precision": precision,
        "dtype": "float32" if PRECISIONS[precision] is None else "float16",
        "shape": list(vlm.encode_images(blank[None]).shape[1:]),  # [D] or [Q, D]
        "preprocessing": json.dumps(getattr(vlm, "recipe", {}).get("preprocess", {}), default=str),
    }


class WithSize:
    """A VLM whose embedding of an image ends with the image's width and height in pixels.

    They go through `embed_images` beside the pixels. So no image is opened a second time.
    """

    def __init__(self, vlm: VLM) -> None:
        self.vlm, self.name, self.device, self.dim = vlm, vlm.name, vlm.device, vlm.dim
        self.fingerprint, self.encode_texts = vlm.fingerprint, vlm.encode_texts

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        """An image -> (3 * H * W + 2,)"""
        pixels = self.vlm.preprocess(image)
        self.shape = pixels.shape
        return torch.cat([pixels.flatten(), torch.tensor(image.size, dtype=pixels.dtype)])

    def encode_images(self, batch: torch.Tensor) -> torch.Tensor:
        """(B, 3 * H * W + 2) -> (B, Q * D + 2)"""
        pixels, sizes = batch[:, :-2].contiguous().unflatten(1, self.shape), batch[:, -2:]
        embedded = self.vlm.encode_images(pixels).float().cpu()
        return torch.cat([embedded.flatten(1), sizes], dim=1)


class Embedder:
    """A worker: it loads the VLM once and embeds one part after the other."""

    def __init__(self, job: Job, threads: int) -> None:
        self.job, self.threads = job, threads
        self.vlm: WithSize | None = None
        self.stores: dict[str, FileSystem] = {}
        remove_leftovers(job.out)  # of a worker that was killed on this machine

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Ray Data's row: number and names of a part -> its number, and what went wrong."""
        try:
            self.write(row["number"], row["names"], row["digest"])
        except Exception as error:
            message = advice(error)
            if message is None:  # a bug
                raise
            return {"number": row["number"], "error": f"a worker on {HOST}: {message}"}
        return {"number": row["number"], "error": ""}

    def load(self) -> WithSize:
        """The VLM.

        Raises:
            UserError: this machine has other weights than the one where the run started.
        """
        vlm = load_vlm(self.job.vlm, precision=self.job.precision)
        if vlm.fingerprint != self.job.about["fingerprint"]:
            raise UserError(f"the weights of {vlm.name} differ from those where the run started")
        return WithSize(vlm)

    def image(self, name: str) -> Path | RemoteFile:
        """The file of a name."""
        scheme, remote, path = name.partition("://")
        if not remote:
            return Path(self.job.root, name)
        uri = self.job.store or f"{scheme}://{path.partition('/')[0]}"
        if uri not in self.stores:
            self.stores[uri] = object_store(uri)[0]
        return RemoteFile(path, self.stores[uri])

    def write(self, number: int, joined: bytes, digest: str) -> None:
        """Embed one part and write its file."""
        self.vlm = self.vlm or self.load()
        job, width = self.job, int(np.prod(self.job.about["shape"]))
        names = [os.fsdecode(name) for name in joined.split(b"\0")]
        images = [self.image(name) for name in names]
        found, digests, kept = np.empty((0, width + 2), np.float32), [], []
        try:
            embedded = embed_images(
                self.vlm, images, None, job.batch_size, self.threads, unreadable="skip"
            )
        except NoneReadable as error:
            unreadable = error.unreadable
        else:
            found, unreadable = embedded.image, embedded.unreadable
            digests = embedded.digests.tolist()
            kept = [names[place] for place in embedded.kept]
        failures = [
            (shown(name), unreadable[image])
            for name, image in zip(names, images, strict=True)
            if image in unreadable
        ]
        table = as_table(kept, digests, found, job.about["dtype"]).replace_schema_metadata(
            {
                "fingerprint": job.about["fingerprint"],
                "precision": job.precision,
                "input": digest,
                "unreadable": json.dumps(failures),
            }
        )
        with atomic_path(job.file(number)) as temporary:
            pq.write_table(table, temporary, ROWS, use_dictionary=False, write_page_checksum=True)


def as_table(names: list[str], digests: list[bytes], found: np.ndarray, dtype: str) -> pa.Table:
    """The rows of a part; `found` (N, Q * D + 2): embeddings, and width and height.

    Raises:
        UserError: an embedding is too large for `dtype`.
    """
    size = found[:, -2:].astype(np.int32)
    with np.errstate(over="ignore"):  # which the next line finds
        embedding = found[:, :-2].astype(dtype)
    if not np.isfinite(embedding).all():
        raise UserError("an embedding has values above 65,504, too large for float16; use fp32")
    rows = pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embedding.shape[1])
    return pa.table(
        {
            "path": pa.array([shown(name) for name in names], pa.string()),
            "digest": pa.array(digests, pa.binary(16)),
            "width": size[:, 0],
            "height": size[:, 1],
            "embedding": rows,
        }
    )


# ---- finished parts -----------------------------------------------------------------------------


class Footer(NamedTuple):
    """What the end of a part's file says."""

    fingerprint: str
    precision: str
    digest: str
    rows: int
    unreadable: list[list[str]]  # name, why


def read_part(file: Path) -> Footer | None:
    """None if there is no such file, or it is damaged or something else."""
    try:
        found = pq.read_metadata(file)
        fingerprint, precision, digest, unreadable = (
            found.metadata[key].decode()
            for key in (b"fingerprint", b"precision", b"input", b"unreadable")
        )
        return Footer(fingerprint, precision, digest, found.num_rows, json.loads(unreadable))
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError):
        return None


def finished(job: Job, parts: list[Part]) -> dict[int, int]:
    """Number -> count of images of each part that need not be made. Removes parts of a longer list.

    Raises:
        UserError: the folder holds embeddings of something else.
    """
    files = sorted(job.out.glob("part-*.parquet"))
    present = {file: read_part(file) for file in progress(files, label="parts", unit="parts")}
    known = [footer for footer in present.values() if footer]
    wanted = (job.about["fingerprint"], job.precision)
    if any((footer.fingerprint, footer.precision) != wanted for footer in known):
        raise UserError(
            f"{job.out} holds embeddings of another VLM or precision; choose another --out"
        )
    done = {
        part.number: part.images
        for part in parts
        if (footer := present.get(job.file(part.number))) and footer.digest == part.digest
    }
    if known and not done:
        raise UserError(
            f"{job.out} holds embeddings of other images, or with another --batch-size; choose "
            "another --out, or remove it"
        )
    for file in present.keys() - {job.file(part.number) for part in parts}:
        (job.out / "manifest.json").unlink(missing_ok=True)
        file.unlink()
    return done


def write_results(job: Job, parts: list[Part]) -> list[str]:
    """unreadable.csv and manifest.json, from the ends of all parts; -> lines about them."""
    footers = [read_part(job.file(part.number)) for part in parts]
    if None in footers:
        raise UserError(f"{job.file(footers.index(None))} has gone; run the command again")
    unreadable = list(chain.from_iterable(footer.unreadable for footer in footers))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("path", "why"), *unreadable])
    write_text(job.out / "unreadable.csv", table.getvalue())
    images = sum(footer.rows for footer in footers)
    manifest = {"format": FORMAT, **job.about, "root": job.root, "images": images}
    manifest |= {"batch_size": job.batch_size}
    write_text(job.out / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    lines = [f"{job.out}: {images:,} embeddings in {len(parts):,} parts"]
    if unreadable:
        first = "; ".join(f"{name}: {why}" for name, why in unreadable[:3])
        lines.append(
            f"{len(unreadable):,} images could not be read ({job.out / 'unreadable.csv'}), the "
            f"first: {first}"
        )
    return lines


# ---- Ray ----------------------------------------------------------------------------------------


def import_ray() -> Any:
    """Ray, silent: it sends no statistics, and what it prints would hide our own lines.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # leaves out all that matches
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("Ray Data is not installed: pip install -e '.[ray]'") from None
    return ray


@contextmanager
def silent_c() -> Iterator[None]:
    """Python's stderr goes on; what Ray's C++ part writes there, past Python, goes nowhere."""
    python, kept = sys.stderr, os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    with open(kept, "w", buffering=1, closefd=False) as sys.stderr:
        try:
            yield
        finally:
            sys.stderr = python
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster at `address`, or started on this machine.

    Raises:
        UserError: no such cluster.
    """
    ray, quiet = import_ray(), {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init("local", include_dashboard=False, **quiet)
    else:
        why = why_not_there(address)
        try:
            if not why:
                ray.init(address, **quiet)
        except Exception as error:  # of many kinds: another version of Ray or Python, ...
            why = shorten(str(error), 300)
        if why:
            raise UserError(
                f"cannot join a Ray cluster at {address}: {why}; `ray start --head` starts one"
            )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield ray
    finally:
        ray.shutdown()


def why_not_there(address: str) -> str:
    """Why no cluster answers, or nothing. `ray.init` itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            return error.strerror or str(error)
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(check, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "no answer in 30 seconds"
    said = done.stderr.strip().splitlines() or ["no answer"]
    return "" if done.returncode == 0 else shorten(said[-1], 300)


class Share(NamedTuple):
    """How many workers there are, and what each one takes."""

    workers: int
    gpus: int
    cores: int


def share(nodes: list[dict[str, float]], workers: int | None) -> Share:
    """A GPU and its part of the machine's cores per worker; without GPUs, two cores.

    Args:
        nodes: `GPU` and `CPU` of each machine.
        workers: None: as many as there is room for.

    >>> share([{"CPU": 8}, {"CPU": 32, "GPU": 4}], None)
    Share(workers=4, gpus=1, cores=8)
    >>> share([{"CPU": 8}, {"CPU": 3}], None)
    Share(workers=5, gpus=0, cores=2)

    Raises:
        UserError: more workers than GPUs, or than cores.
    """
    gpus, cores = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "CPU"))
    if workers and workers > (gpus or cores):
        raise UserError(
            f"there are {gpus} GPUs and {cores} cores; --workers can be at most {gpus or cores}"
        )
    if gpus:
        each = min(node.get("CPU", 1) // node["GPU"] for node in nodes if node.get("GPU"))
        return Share(workers or gpus, 1, max(1, int(each)))
    largest = int(max(node.get("CPU", 0) for node in nodes))
    each = min(largest, max(1, cores // workers) if workers else CORES)
    return Share(workers or sum(int(node.get("CPU", 0) // each) for node in nodes), 0, each)


def run_parts(ray: Any, job: Job, parts: list[Part], workers: int | None) -> Iterator[int]:
    """Have the workers embed `parts`; yield the number of each as soon as it is written.

    If a worker is killed, Ray starts another one and gives it the same part.

    Raises:
        UserError: what a worker could not do.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    mine = share(nodes, workers)
    what = f"{mine.gpus} GPU and {mine.cores} cores" if mine.gpus else f"{mine.cores} cores"
    print(f"{len(parts):,} parts to embed; workers: {mine.workers}, each with {what}", flush=True)
    rows = [{"number": p.number, "names": p.names, "digest": p.digest} for p in parts]
    threads = WAITING if any(b"://" in part.names for part in parts) else mine.cores
    reports = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Embedder,
        fn_constructor_args=(job, threads),
        compute=ray.data.ActorPoolStrategy(size=min(mine.workers, len(parts))),
        num_gpus=mine.gpus,
        num_cpus=mine.cores,
    )
    try:
        for report in reports.iter_rows():
            if report["error"]:
                raise UserError(report["error"])
            yield int(report["number"])
    except ray.exceptions.RayError as error:
        missing = re.search("No module named '([^']+)'", str(error))
        if missing is None:  # a bug
            raise
        raise UserError(
            f"the workers have no module {missing[1]!r}; install this repository, and what the VLM "
            "needs, on all machines of the cluster"
        ) from None


# ---- arguments ----------------------------------------------------------------------------------


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", required=True, metavar="DIR|LIST.txt|s3://BUCKET/PREFIX")
    add("--vlm", default="clip", help="see the README (default: %(default)s)")
    add("--out", type=Path, required=True, help="a folder that all machines share")
    add("--precision", default="fp32", choices=list(PRECISIONS))
    add("--batch-size", type=int, default=256, help="images at once (default: %(default)s)")
    add("--address", help="of a Ray cluster: auto, or host:port (default: this machine)")
    add("--workers", type=int, help="default: one per GPU, or per two cores without GPUs")
    args = parser.parse_args(argv)
    if args.batch_size < 1 or (args.workers is not None and args.workers < 1):
        raise UserError("--batch-size and --workers must be 1 or more")
    return args


if __name__ == "__main__":
    main()
