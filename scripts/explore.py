"""Look at a folder of images under criteria of your own: clusters, a page, search, labels.

    python scripts/explore.py ~/pictures --criterion mood --texts mood=my_bases/mood.yaml
    python scripts/explore.py ~/pictures --criterion mood --criterion season --llm llama3.1 \\
        --base-url http://localhost:11434/v1
    python scripts/explore.py ~/pictures --rank
    python scripts/explore.py ~/pictures --propose --llm MODEL
    python scripts/explore.py ~/pictures --criterion mood --query a.jpg --unlike season=0.5
    python scripts/explore.py ~/pictures --criterion mood --labels few.csv
    python scripts/explore.py ~/pictures --features mine.npz --criterion mood

The texts of a criterion come from its file (--texts), from an earlier run (texts/ in the output
folder; edit them as you like), from a basis of that name in configs/bases, or from an LLM (--llm).
Writes report.html, images.csv, images.parquet and embeddings.safetensors. A second run computes
only what is new.

--features: embeddings made elsewhere, a file as in crl/run/given.py: ids (names of the image files)
and image (N, D); and text (K, D) and texts for one criterion, or --vlm, which made them.
"""

from crl.run.command import command, one_line

import argparse
import csv
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from crl.basis import BASES, PACKAGE, TextBasis
from crl.explore import listing
from crl.explore.collection import Collection
from crl.explore.labels import Guesses
from crl.explore.view import View
from crl.representations import names as representations
from crl.run.errors import ArgumentParser, UserError
from crl.run.files import alone_in, atomic_path, slug, write_text
from crl.run.results import digest
from crl.run.tables import Table

# crl.llm, crl.explore.propose and crl.explore.tables are imported where they are used: each takes a
# second.

MADE = ("report.html", "images.csv", "images.parquet", "embeddings.safetensors")
CODE = (".py", ".html", ".js", ".css")
TEXTS = 200  # asked of the LLM per criterion; more of them change little and cost time
TEXTS_TO_RANK = 50  # per proposed criterion


@command
def main(argv: list[str]) -> None:
    args = parse(argv)
    if not args.folder.is_dir():
        raise UserError(f"there is no folder {args.folder}")
    source = args.features or args.folder
    name = args.features.stem if args.features else args.folder.resolve().name
    out = args.out or Path("outputs/explore") / (slug(name) or "pictures")
    with alone_in(out):
        named = [] if with_texts(args) else args.criterion
        bases = {name: TextBasis.load(find_texts(name, args, out)) for name in named}
        others = {name: find_texts(name, args, out) for name in {**args.like, **args.unlike}}
        labels = read_labels(args.labels) if args.labels else None
        photos = collect(args)
        vlm = f"VLM {photos.vlm.name}" if photos.vlm else "VLM not known"
        print(one_line(f"{source}: {len(photos.files):,} pictures, {vlm}"))
        print("".join(f"  {one_line(remark)}\n" for remark in photos.remarks()))
        views = [
            photos.under(bases.get(name), args.representation, name) for name in args.criterion
        ]
        if args.propose:
            propose(photos, args, out)
        elif args.rank:
            print(ranking(photos, bases))
        elif args.query is not None:
            search(views[0] if views else photos.universal, others, args, out)
        else:
            explore(photos, views, labels, args, out)


def collect(args: argparse.Namespace) -> Collection:
    """The images and their embeddings: made elsewhere, by scripts/embed_ray.py, or made now."""
    if args.features:
        return Collection.given(args.features, args.vlm, args.folder)
    if listing.is_listing(args.folder / listing.NAME):
        return Collection.load(args.folder, args.vlm)
    return Collection.embed(args.folder, args.vlm or "clip", batch_size=args.batch_size)


def with_texts(args: argparse.Namespace) -> bool:
    """Do the texts of the criterion come with the embeddings?"""
    return bool(args.features and not args.vlm)


# ---- the texts ----------------------------------------------------------------------------------


def find_texts(name: str, args: argparse.Namespace, out: Path, number: int = TEXTS) -> str:
    """The file or name of a criterion's basis: given, of an earlier run, of this repository, or
    written by the LLM now."""
    kept = out / "texts" / f"{slug(name)}.yaml"
    texts = args.texts.get(name) or (str(kept) if kept.is_file() else name)
    if texts != name or (BASES / f"{name}.yaml").is_file():
        return texts
    if not args.llm:
        shipped = ", ".join(sorted(file.stem for file in BASES.glob("*.yaml")))
        raise UserError(
            f"there are no texts for {name!r}; give their file (--texts {name}=FILE.yaml), an LLM "
            f"that writes them (--llm MODEL, a local one with --base-url), or a basis that comes "
            f"with this repository: {shipped}"
        )
    if not slug(name):
        raise UserError(f"the criterion {name!r} has no letter to name a file by")
    from crl.llm import OPENAI, generate_basis

    print(f"asking {args.llm} for texts about {name} ...")
    prompt = f"a photo with the {name} of {{text}}"
    settings = {"model": args.llm, "base_url": args.base_url or OPENAI, "number": number}
    generate_basis(name, prompt, **settings).save(kept)
    print(f"{kept}: the texts about {name}; edit them as you like")
    return str(kept)


def ranking(photos: Collection, bases: Mapping[str, TextBasis]) -> str:
    """A table: which of these criteria, and of those of this repository, the images vary in."""
    shipped = {file.stem: TextBasis.load(file) for file in sorted(BASES.glob("*.yaml"))}
    rows = [[name, f"{score:.3f}"] for name, score in photos.rank({**shipped, **bases}).items()]
    return Table("Which criterion do these images vary in?", ["criterion", "nats"], rows).text()


def propose(photos: Collection, args: argparse.Namespace, out: Path) -> None:
    """Show contact sheets to a multimodal LLM, if the person says so, and rank what it proposes."""
    from crl.explore.propose import COLUMNS, ROWS, contact_sheets, propose_criteria
    from crl.llm import OPENAI

    sheets, server = contact_sheets(photos.files), args.base_url or OPENAI
    for number, sheet in enumerate(sheets, start=1):
        with atomic_path(out / "sheets" / f"{number}.jpg") as temporary:
            temporary.write_bytes(sheet)
    size, pictures = sum(map(len, sheets)), min(len(photos.files), len(sheets) * COLUMNS * ROWS)
    print(
        f"{out / 'sheets'}: {len(sheets)} contact sheets, {pictures} pictures, {size / 1e3:,.0f} KB"
    )
    if not args.send:
        print(f"nothing was sent; add --send to show them to {args.llm} at {server}")
        return
    names = propose_criteria(sheets, model=args.llm, base_url=server)
    print(f"{args.llm} proposes: {', '.join(names)}")
    bases = {n: TextBasis.load(find_texts(n, args, out, TEXTS_TO_RANK)) for n in names}
    print(ranking(photos, bases))


# ---- looking ------------------------------------------------------------------------------------


def search(view: View, others: Mapping[str, str], args: argparse.Namespace, out: Path) -> None:
    """Print the images nearest to the query, and write them as a contact sheet."""
    matches = view.nearest(
        args.query,
        args.top,
        like={others[name]: weight for name, weight in args.like.items()},
        unlike={others[name]: weight for name, weight in args.unlike.items()},
    )
    rows = [
        [str(place), one_line(file), f"{similarity:.3f}", words]
        for place, (file, similarity, words) in enumerate(matches.itertuples(index=False), start=1)
    ]
    title = one_line(f"Nearest to {args.query} under {view.name}")
    print(Table(title, ["", "file", "similarity", "words"], rows, left=4).text())
    files = [view.collection.files[view.collection.place(name)] for name in matches["file"]]
    if not any(file.is_file() for file in files):  # the embeddings were loaded without them
        return
    from crl.explore.propose import contact_sheet

    sheet = contact_sheet(files)
    with atomic_path(out / "query.jpg") as temporary:
        temporary.write_bytes(sheet)
    print(f"pictures, best first: {out / 'query.jpg'}")


def explore(
    photos: Collection,
    views: list[View],
    labels: dict[str, str] | None,
    args: argparse.Namespace,
    out: Path,
) -> None:
    """Clusters, names, labels; the page and the tables, unless they are as they would be now."""
    guesses = {view.name: view.guesses(labels) for view in views} if labels else {}
    for view in views:
        print(cluster_table(view, args.clusters))
        if view.name in guesses:
            print(label_summary(view, guesses[view.name]))
    command_line = shlex.join(["python", "scripts/explore.py", *sys.argv[1:]])
    inputs, made = everything(photos, views, labels, command_line), out / ".made"
    before = made.read_text(encoding="utf-8") if made.is_file() else ""
    if not all((out / name).is_file() for name in MADE) or before != inputs:
        from crl.explore.tables import write_tables

        made.unlink(missing_ok=True)
        write_tables(out, photos, views, args.clusters, guesses)
        photos.report(out / MADE[0], views, args.clusters, guesses, command_line)
        write_text(made, inputs)
    print(f"{out / MADE[0]}: open it in a browser")
    print(f"{out}: {', '.join(MADE[1:])}")


def everything(
    photos: Collection, views: list[View], labels: dict[str, str] | None, command_line: str
) -> str:
    """A digest of all that the page and the tables depend on, this program included."""
    code = [file for file in sorted(PACKAGE.rglob("*")) if file.suffix in CODE]
    about = [photos.names, [view.basis.digest for view in views], labels, photos.remarks()]
    about += [photos.facts(views, command_line)["VLM"], [file.read_text("utf-8") for file in code]]
    return digest(photos.digests.view(np.uint8), *about, command_line)


def cluster_table(view: View, number: int | None) -> str:
    """The clusters of a view, with their names."""
    clusters, names, _ = view.groups(number)
    sizes = np.bincount(clusters.label)
    rows = [
        [str(size), ", ".join(view.words[name.words]), "weak" if name.weak else ""]
        for size, name in zip(sizes, names, strict=True)
    ]
    title = f"{view.name}: {clusters.note}"
    return Table(title, ["images", "words by which they stand out", ""], rows, left=3).text()


def label_summary(view: View, guesses: Guesses) -> str:
    """How good the guesses are, and what to label next."""
    lines = [f"labels under {view.name}: mean confidence {guesses.confidence.mean():.0%}"]
    if guesses.accuracy is not None:
        lines[0] += f", {guesses.accuracy:.0%} right of {guesses.tested} that were left out to test"
    ask = [view.collection.names[place] for place in guesses.ask]
    lines.append("label these next: " + ", ".join(ask[:5]) + (" ..." if len(ask) > 5 else ""))
    return "\n".join(map(one_line, lines))


# ---- arguments ----------------------------------------------------------------------------------


def read_labels(file: Path) -> dict[str, str]:
    """File name -> label, of a CSV file whose first line is `file,label`.

    Raises:
        UserError: another form, an empty label, or two labels for one image.
    """
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"cannot read {file}: {getattr(error, 'strerror', error)}") from error
    if not rows or [cell.strip() for cell in rows[0]] != ["file", "label"]:
        raise UserError(f"{file} must begin with the line file,label")
    labels: dict[str, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != 2 or not row[1].strip():
            raise UserError(f"{file}, line {line}: it must hold a file and its label, not {row}")
        name, label = row[0], row[1].strip()
        if labels.setdefault(name, label) != label:
            raise UserError(f"{file}, line {line}: {name!r} has two labels")
    return labels


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, nargs="?", help="the images, at any depth; or --out of embed_ray.py")
    add("--features", type=Path, metavar="FILE", help="embeddings made elsewhere")
    add("--criterion", action="append", default=[], metavar="NAME", help="may be repeated")
    add("--texts", action="append", default=[], type=pair, metavar="NAME=FILE.yaml")
    add("--llm", metavar="MODEL", help="writes the texts of criteria that have none")
    add(
        "--base-url",
        default=os.environ.get("OPENAI_BASE_URL"),
        help="of the LLM: any OpenAI-compatible server (default: OPENAI_BASE_URL, or OpenAI's)",
    )
    add("--vlm", help="see the README (default: clip; of embeddings the one that made them)")
    add("--representation", default="posterior", choices=representations())
    add("--clusters", default=None, type=clusters, metavar="auto|K", help="default: auto")
    add("--out", type=Path, help="default: outputs/explore/<name of the folder>")
    add("--batch-size", type=int, default=64, help="images at once (default: %(default)s)")
    what = parser.add_mutually_exclusive_group()
    other = what.add_argument
    other("--rank", action="store_true", help="which criteria do the images vary in?")
    other("--propose", action="store_true", help="an LLM that sees images proposes criteria")
    other("--query", metavar="IMAGE|TEXT", help="the images nearest to it, under the criterion")
    other("--labels", type=Path, metavar="FILE.csv", help="file,label of a few: label the rest")
    add("--send", action="store_true", help="with --propose: contact sheets may leave the machine")
    add("--like", action="append", default=[], type=weight, metavar="NAME=WEIGHT")
    add("--unlike", action="append", default=[], type=weight, metavar="NAME=WEIGHT")
    add("--top", type=int, default=20, help="images that a query finds (default: %(default)s)")
    args = parser.parse_args(argv)
    for key in ("texts", "like", "unlike"):
        setattr(args, key, dict(getattr(args, key)))
    args.criterion = list(dict.fromkeys([*args.criterion, *args.texts]))
    if not (args.folder or args.features):
        raise UserError("name the folder of the images, or --features FILE")
    args.folder = (args.folder or Path()).expanduser()
    if with_texts(args) and (args.texts or len(args.criterion) > 1):
        raise UserError("--features holds texts for one criterion; for others, name the VLM that "
                        "made the embeddings: --vlm")  # fmt: skip
    if "universal" in args.criterion:
        raise UserError(
            "universal is the name of the embedding without a criterion; choose another"
        )
    if args.propose and not args.llm:
        raise UserError("--propose needs a model that sees images: --llm MODEL")
    if (args.like or args.unlike) and args.query is None:
        raise UserError("--like and --unlike belong to --query")
    if args.top < 1 or args.batch_size < 1:
        raise UserError("--top and --batch-size must be 1 or more")
    if not (args.criterion or args.rank or args.propose or args.query is not None):
        raise UserError("name a criterion (--criterion mood), or see which ones fit: --rank")
    return args


def pair(text: str) -> tuple[str, str]:
    """`name=value`, for argparse."""
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, not {text!r}")
    return name.strip(), value.strip()


def weight(text: str) -> tuple[str, float]:
    """`name=weight` or `name`, for argparse."""
    name, value = pair(text if "=" in text else f"{text}=1")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"the weight of {name} must be a number") from None


def clusters(text: str) -> int | None:
    """`auto` or a number, for argparse."""
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"write auto, or a number of clusters, not {text!r}")
    return None if text == "auto" else int(text)


if __name__ == "__main__":
    main()
