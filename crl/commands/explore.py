"""Look at a folder of images under criteria of your own: clusters, a page, search, labels.

    crl explore ~/pictures --texts mood=mood.txt
    crl explore ~/pictures --criterion mood --llm llama3.1 --base-url URL
    crl explore ~/pictures --rank
    crl explore ~/pictures --propose --llm MODEL
    crl explore ~/pictures --criterion mood --query a.jpg --unlike season=0.5
    crl explore ~/pictures --criterion mood --labels few.csv
    crl explore ~/pictures --criterion mood --serve
    crl explore ~/pictures --criterion mood --export kept --export-as copies

The texts of a criterion come from its file (--texts: a .txt with a text per line, or .yaml), from
an earlier run (texts/ in the output folder; edit them as you like), from a basis of that name in
configs/bases or configs/bases/everyday, or from an LLM (--llm).
A second run computes only what is new; without changes, it prints what was printed. For --features
see `Collection.given`.
"""

from crl.run.command import command, one_line

import argparse
import os
import re
import shlex
import sys
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crl.basis import BASES, PACKAGE, TextBasis, shipped
from crl.explore import listing
from crl.explore.edits import EDITED, Edits
from crl.explore.sources import picture_folder, source_name
from crl.images import MOST_PIXELS, list_images, shown
from crl.representations import names as representations
from crl.representations import supervisions
from crl.run.errors import ArgumentParser, UserError, nearest, whole_number
from crl.run.files import OURS, alone_in, atomic_path, read_text, slug, write_text
from crl.run.results import PACKAGES, digest
from crl.run.stamps import read_record, settled_stamps, stamps, write_record
from crl.run.tables import Table

if TYPE_CHECKING:
    from crl.explore.collection import Collection
    from crl.explore.view import View

# What takes a second or more to import is imported where it is used: a repeated run needs none.

MADE = ("report.html", "images.csv", "images.parquet", "embeddings.safetensors")
RECORD = ".made"  # what they were made of, and what was printed
CODE = (".py", ".html", ".js", ".css")
EXPORTS = ("lists", "copies", "links", "xmp")
SHOWN = 15  # of the ranked criteria
TEXTS_TO_RANK = 50  # asked of the LLM per proposed criterion


@command
def main(argv: list[str]) -> None:
    args = parse(argv)
    name = args.features.stem if args.features else source_name(args.folder)
    out = args.out or Path("outputs/explore") / (slug(name) or "pictures")
    with alone_in(out):
        if args.out is None:
            keep_apart(out, shown(args.source.resolve()))
        args.folder = picture_folder(args.folder)
        bases = find_bases(args, out)
        edits = {name: Edits.load(out, name) for name in args.criterion}
        if args.rank or args.propose or args.query is not None or args.serve or args.export:
            answer(bases, edits, args, out)
        else:
            explore_once(bases, edits, args, out)


def find_bases(args: argparse.Namespace, out: Path) -> dict[str, TextBasis]:
    """The texts of each criterion; those of --like and --unlike are found too."""
    if args.add:
        kept = [file.stem for file in sorted((out / "texts").glob("*.yaml"))]
        named = {slug(name) for name in args.criterion}
        args.criterion = [name for name in kept if name not in named] + args.criterion
    given = args.features and not args.vlm and not args.texts  # texts of the first criterion
    wanted = args.criterion[1:] if given else args.criterion
    bases = {name: TextBasis.load(find_texts(name, args, out)) for name in wanted}
    args.like = {find_texts(name, args, out): weight for name, weight in args.like}
    args.unlike = {find_texts(name, args, out): weight for name, weight in args.unlike}
    return bases


def load(args: argparse.Namespace) -> tuple["Collection", str]:
    """The collection, and what is printed about it."""
    from crl.explore.collection import Collection

    if args.features:
        photos = Collection.given(args.features, args.vlm, args.folder, args.device)
    elif listing.is_listing(args.folder / listing.NAME):
        photos = Collection.load(args.folder, args.vlm, args.device)
    else:
        how = args.device, args.precision, args.decode
        photos = Collection.embed(args.source, args.vlm or "clip", *how, batch_size=args.batch_size)
    photos = photos.once() if args.once else photos
    vlm = photos.vlm.name if photos.vlm else "not known"
    head = one_line(f"{args.source}: {len(photos.files):,} pictures, VLM {vlm}") + "\n"
    head += "".join(f"  {one_line(remark)}\n" for remark in photos.remarks())
    print(head)
    return photos, head


def answer(
    bases: Mapping[str, TextBasis], edits: Mapping[str, Edits], args: argparse.Namespace, out: Path
) -> None:
    photos, _ = load(args)
    how = args.representation
    views = [photos.under(bases.get(n), how, n, edits=edits[n]) for n in args.criterion]
    if args.propose:
        propose(photos, args, out)
    elif args.rank:
        print(ranking(photos, bases))
    elif args.query is not None:
        search(views[0] if views else photos.universal, args, out)
    elif args.serve:
        start_server(photos, views, args, out)
    else:
        export_groups(views or [photos.universal], args)


def explore_once(
    bases: Mapping[str, TextBasis], edits: Mapping[str, Edits], args: argparse.Namespace, out: Path
) -> None:
    """Explore, or print again what was printed if nothing has changed since."""
    settings = all_settings(args, bases, edits)
    seen = looked_at(args, settings)
    last = read_record(out / RECORD) if all((out / name).is_file() for name in MADE) else {}
    if seen and last.get("seen") == seen and last["vlm"] == stamps(map(Path, last["vlm"])):
        print(last["head"], last["body"], sep="\n")
        return
    from crl.backends.loaded import LoadedVLM
    from crl.explore.labels import read_labels

    labels = read_labels(args.labels) if args.labels else None
    photos, head = load(args)
    inputs = digest(photos.digests.view(np.uint8), photos.vlm and photos.vlm.fingerprint,
                    *(photos.texts or ()), photos.names, photos.remarks(), settings)  # fmt: skip
    if last.get("inputs") == inputs:
        print(body := last["body"])
    else:
        how = args.representation
        views = [photos.under(bases.get(n), how, n, labels, edits=edits[n]) for n in args.criterion]
        body = explore(photos, views, labels, args, out)
    # Not if a picture could not be read, maybe only now; nor with a VLM of one's own.
    whole = seen and seen[0] == len(photos.files)
    files = photos.vlm.files if whole and isinstance(photos.vlm, LoadedVLM) else {}
    record = {"inputs": inputs, "seen": seen if files else None, "vlm": files}
    write_record(out / RECORD, {**record, "head": head, "body": body})


def command_line() -> str:
    """What the user typed: `crl explore ...`, or the script of a clone."""
    script = sys.argv[0].endswith(".py")
    start = ["python", "scripts/explore.py"] if script else ["crl", "explore"]
    return shlex.join([*start, *sys.argv[1:]])


def all_settings(
    args: argparse.Namespace, bases: Mapping[str, TextBasis], edits: Mapping[str, Edits]
) -> str:
    """A digest of all but pictures and VLM that the output depends on, this program included."""
    code = [file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*")) if file.suffix in CODE]
    texts = [[name, basis.digest] for name, basis in bases.items()]
    versions = [metadata.version(package) for package in PACKAGES]
    labels = read_text(args.labels) if args.labels else None
    place = shown(args.folder.resolve())
    by_hand = [[name, edit.model_dump_json()] for name, edit in edits.items()]
    return digest(code, texts, by_hand, versions, labels, MOST_PIXELS, place, command_line())


def looked_at(args: argparse.Namespace, settings: str) -> list | None:
    """The number of pictures, and a digest of the settings and of their names and stamps; None if
    these do not tell whether one has changed."""
    if args.features or listing.is_listing(args.folder / listing.NAME):
        return None
    images = list_images(args.folder)
    settled = settled_stamps(images.files)
    complete = len(settled) == len(images.files)
    return [len(settled), digest(settings, settled, images.remarks())] if complete else None


def keep_apart(out: Path, source: str) -> None:
    """A UserError if `out` has been made of another folder of the same name."""
    mark = out / OURS
    earlier = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    if earlier not in ("", source):
        raise UserError(f"{out} was made of {earlier}; choose another folder (--out)")
    if not earlier:
        write_text(mark, source)


def find_texts(name: str, args: argparse.Namespace, out: Path, number: int | None = None) -> str:
    """The file or name of a criterion's basis: given, of an earlier run, of this repository, or
    written by the LLM now. Given and written ones are kept for the next run."""
    if not slug(name):
        raise UserError(f"a criterion needs a name with letters or digits, not {name!r}")
    kept = out / "texts" / f"{slug(name)}.yaml"
    if name in args.texts:
        basis = TextBasis.load(args.texts[name])
        if Path(args.texts[name]).suffix == ".txt":
            basis = TextBasis.of(basis.texts, name)
        former = TextBasis.load(kept) if kept.is_file() else None
        if former and EDITED in former.provenance:
            note = f"to take {args.texts[name]}, remove it"
            warnings.warn(f"{kept} was edited in the page and is used; {note}", stacklevel=2)
        elif former != basis:
            basis.save(kept)
    if kept.is_file():
        return str(kept)
    for known in (name, f"everyday/{slug(name)}"):
        if (BASES / f"{known}.yaml").is_file():
            return known
    if not args.llm:
        alike = ", ".join(known for known in shipped() if is_like(slug(name), known))
        hint = f"try {alike}" if alike else "--rank tries those that are at hand"
        raise UserError(f"there are no texts for {name!r}; give a file (--texts {name}=FILE) or "
                        f"an LLM that writes them (--llm MODEL); {hint}")  # fmt: skip
    basis = written_texts(name, args, number)
    basis.save(kept)
    count = f"{len(basis.texts)} of {number or args.number} texts"
    print(f"{kept}: {count} about {name}; edit them as you like")
    return str(kept)


def is_like(name: str, known: str) -> bool:
    """Does the name of a basis hold this one, or a word that is spelled nearly so?"""
    words = re.split("[/_-]", known)
    return name in known or bool(get_close_matches(name, words, cutoff=0.8))


def written_texts(name: str, args: argparse.Namespace, number: int | None = None) -> TextBasis:
    from crl.llm import generate_basis

    print(f"asking {args.llm} for texts about {name} ...")
    return generate_basis(
        name, f"a photo with the {name} of {{text}}", model=args.llm, base_url=args.base_url,
        timeout=args.timeout, seed=args.seed, number=number or args.number,
    )  # fmt: skip


def start_server(
    photos: "Collection", views: list["View"], args: argparse.Namespace, out: Path
) -> None:
    from crl.explore.serve import serve
    from crl.explore.session import Session

    writer = partial(written_texts, args=args) if args.llm else None
    how = args.clusters, writer, args.representation, command_line()
    serve(Session(photos, views, out, *how), args.port)


def ranking(photos: "Collection", bases: Mapping[str, TextBasis]) -> str:
    """A table: which of these criteria, and of those of this repository, the images vary in."""
    known = {Path(name).name: TextBasis.load(name) for name in shipped()}
    table = photos.rank({**known, **bases}, SHOWN)
    rows = []
    for place, line in enumerate(table.itertuples(index=False)):
        if place < SHOWN or line.criterion in bases:
            like = f"{line.ami:.2f} {line.like}" if line.like else ""
            rows.append([line.criterion, f"{line.nats:.3f}", like])
    header = ["criterion", "nats", "AMI of the clusters with one above"]
    text = Table("Which criterion do these images vary in?", header, rows).text()
    more = f"{len(table) - len(rows)} more have less"
    lost = {**known, **bases}.keys() - set(table["criterion"])
    more += f"; the VLM cannot tell the texts of {len(lost)} apart" if lost else ""
    more += "".join(f"; nor those of {name}" for name in bases if name in lost)
    return f"{text}\n{one_line(more)}"


def propose(photos: "Collection", args: argparse.Namespace, out: Path) -> None:
    """Show contact sheets to a multimodal LLM, if --send says so, and rank what it proposes."""
    from crl.explore.propose import contact_sheets, propose_criteria

    sheets = contact_sheets(photos.files)
    for number, sheet in enumerate(sheets, start=1):
        with atomic_path(out / "sheets" / f"{number}.jpg") as temporary:
            temporary.write_bytes(sheet)
    print(f"{out / 'sheets'}: {len(sheets)} contact sheets, {sum(map(len, sheets)):,} bytes")
    if not args.send:
        print(f"nothing was sent; add --send to show them to {args.llm} at {args.base_url}")
        return
    names = propose_criteria(sheets, args.llm, args.base_url, timeout=args.timeout)
    print(f"{args.llm} proposes: {', '.join(names)}")
    bases = {n: TextBasis.load(find_texts(n, args, out, TEXTS_TO_RANK)) for n in names}
    print(ranking(photos, bases))


def search(view: "View", args: argparse.Namespace, out: Path) -> None:
    matches = view.nearest(args.query, args.top, args.like, args.unlike)
    lines = matches.itertuples(index=False)
    rows = [[one_line(file), f"{similarity:.3f}", words] for file, similarity, words in lines]
    title = one_line(f"Nearest to {args.query} under {view.name}")
    print(Table(title, ["file", "similarity", "words"], rows, left=3).text())
    print(view.matching(args.query).note)
    numbers = [view.collection.place(name) for name in matches["file"]]
    files = [view.collection.files[i] for i in numbers[:1_000]]
    if any(file.is_file() for file in files):  # embeddings can be loaded without them
        from crl.explore.propose import contact_sheet

        with atomic_path(out / "query.jpg") as temporary:
            temporary.write_bytes(contact_sheet(files))
        print(f"pictures, best first: {out / 'query.jpg'}")
    if args.export:
        keep(view.collection, {args.query: numbers}, args)


def export_groups(views: list["View"], args: argparse.Namespace) -> None:
    """Export the clusters of all views, those of one name together; or the one of --only."""
    groups: dict[str, list[int]] = {}
    for view in views:
        clusters, _, titles = view.groups(args.clusters)
        for number, title in enumerate(titles):
            name = title if len(views) == 1 else f"{view.name}: {title}"
            groups.setdefault(name, []).extend(np.flatnonzero(clusters.label == number).tolist())
    if args.only is not None:
        if args.only not in groups:
            raise UserError(f"there is no cluster {args.only!r}; {nearest(args.only, groups)}")
        groups = {args.only: groups[args.only]}
    keep(views[0].collection, groups, args)


def keep(photos: "Collection", groups: dict[str, list[int]], args: argparse.Namespace) -> None:
    from crl.explore.export import export

    count = export(args.export, photos, groups, args.export_as)
    print(f"{args.export}: {args.export_as} of {count:,} pictures, {len(groups)} groups")


def explore(
    photos: "Collection", views: list["View"], labels: dict | None, args: argparse.Namespace,
    out: Path,
) -> str:  # fmt: skip
    """Write the page and the tables. Print clusters, names and labels; returns what is printed."""
    from crl.explore.audit import audit
    from crl.explore.tables import write_tables

    printed: list[str] = []

    def say(text: str) -> None:
        print(text)
        printed.append(text)

    guesses = {view.name: view.guesses(labels) for view in views} if labels else {}
    for view in views:
        say(cluster_table(view, args.clusters))
        if labels:
            _, confidence, accuracy, ask = guesses[view.name]
            right = "" if accuracy is None else f", {accuracy:.0%} right of those left out to test"
            once = np.isnan(confidence).sum()
            none = f"no confidence for {once:,} pictures; give each label twice or more"
            sure = none if once else f"mean confidence {confidence.mean():.0%}"
            say(f"labels under {view.name}: {sure}{right}")
            say(one_line("label these next: " + ", ".join(photos.names[i] for i in ask[:5])))
            learned = supervisions(view.representation)  # then words are not alone
            if not learned and (access := audit(photos.image, view.x, photos.classes(labels))):
                say(f"access to {view.name}, percent of perfect: {access}")
    (out / RECORD).unlink(missing_ok=True)
    write_tables(out, photos, views, args.clusters, guesses)
    photos.report(out / MADE[0], views, args.clusters, guesses, command_line())
    say(f"{out / MADE[0]}: open it in a browser")
    say(f"{out}: {', '.join(MADE[1:])}")
    return "\n".join(printed)


def cluster_table(view: "View", number: int | None) -> str:
    clusters, names, titles = view.groups(number)
    rows = []
    for size, name, title in zip(np.bincount(clusters.label), names, titles, strict=True):
        words = dict.fromkeys([title, *view.words[name.words]])  # a name by hand is none of them
        rows.append([str(size), ", ".join(words), "weak" if name.weak else ""])
    header = ["images", "words by which they stand out", ""]
    return Table(f"{view.name}: {clusters.note}", header, rows, left=3).text()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    server = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    many: Any = {"action": "append", "default": []}
    add = parser.add_argument
    sources = "images, at any depth; a zip or tar; hf:OWNER/NAME; or --out of crl embed"
    add("folder", type=Path, nargs="?", help=sources)
    add("--features", type=Path, metavar="FILE", help="embeddings made elsewhere")
    add("--criterion", metavar="NAME", help="may be repeated", **many)
    add("--texts", type=name_and_file, metavar="NAME=FILE", **many)
    add("--add", action="store_true", help="and all criteria of texts/ in the output folder")
    add("--llm", metavar="MODEL", help="writes the texts of criteria that have none")
    add("--base-url", default=server, help="of the LLM, OpenAI-compatible (default: %(default)s)")
    add("--timeout", type=float, default=120.0, help="seconds per answer (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the LLM; it may ignore it (default: %(default)s)")
    add("--number", type=whole_number, default=200, help="texts per criterion (default: 200)")
    add("--vlm", help="see the README (default: clip; of embeddings the one that made them)")
    add("--device", help="cpu, cuda, mps ... (default: CUDA if there is a GPU, else the CPU)")
    add("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"],
        help="auto: bf16 if this machine computes in it and embeddings stay the same")  # fmt: skip
    add("--decode", default="fast", choices=["fast", "full"],
        help="fast: large pictures at a reduced size")  # fmt: skip
    add("--representation", default="posterior", choices=representations(),
        help="some need --labels")  # fmt: skip
    add("--clusters", type=whole_number, metavar="K", help="default: by silhouette")
    add("--out", type=Path, help="default: outputs/explore/<name of the folder>")
    add("--batch-size", type=whole_number, default=64, help="images at once (default: %(default)s)")
    add("--send", action="store_true", help="with --propose: contact sheets may leave the machine")
    add("--once", action="store_true", help="leave out near copies of other images")
    add("--like", type=name_and_weight, metavar="NAME=WEIGHT", **many)
    add("--unlike", type=name_and_weight, metavar="NAME=WEIGHT", **many)
    add("--port", type=whole_number, default=0, help="of --serve (default: any that is free)")
    add("--top", type=number_or_auto, default=20, metavar="N|auto",
        help="images that a query finds; auto: those that match a text (README)")  # fmt: skip
    add("--export", type=Path, metavar="FOLDER", help="keep the clusters, or what a query finds")
    add("--export-as", default="lists", choices=EXPORTS,
        help="of paths (the default), of pictures, or keywords")  # fmt: skip
    add("--only", metavar="NAME", help="with --export: one cluster")
    add = parser.add_mutually_exclusive_group().add_argument
    add("--rank", action="store_true", help="which criteria do the images vary in?")
    add("--propose", action="store_true", help="an LLM that sees images proposes criteria")
    add("--query", metavar="IMAGE|TEXT", help="the images nearest to it, under the criterion")
    add("--labels", type=Path, metavar="FILE.csv", help="file,label of a few: label the rest")
    add("--serve", action="store_true", help="a page that searches, and edits words and clusters")
    args = parser.parse_args(argv)
    args.texts = dict(args.texts)
    args.criterion = list(dict.fromkeys([*args.criterion, *args.texts]))
    if args.folder is None and args.features is None:
        raise UserError("name the folder of the images; see --help")
    args.folder = args.folder or Path()  # where the names in --features start
    if not (str(args.folder).startswith("hf:") or args.folder.exists()):
        raise UserError(f"there is no folder {args.folder}")
    args.source = args.features or args.folder
    if "universal" in args.criterion:
        raise UserError("universal means the embedding without a criterion; choose another name")
    if len({slug(name) for name in args.criterion}) < len(args.criterion):  # they name files
        raise UserError("two names of criteria are the same but for case and signs; change one")
    if args.representation != "posterior":  # to ask imports scikit-learn: a second
        needed = supervisions(args.representation)
        if "labels" in needed and not args.labels:
            raise UserError(f"{args.representation} learns from labels of a few images: --labels")
        if needed - {"labels"}:
            raise UserError(f"{args.representation} needs {', '.join(needed)}; not possible here")
    if args.propose and not args.llm:
        raise UserError("--propose needs a model that sees images: --llm MODEL")
    if args.port > 65_535:
        raise UserError(f"--port must be 1 to 65535, not {args.port}")
    if args.export and (args.rank or args.propose or args.labels or args.serve):
        raise UserError("--export keeps clusters, or what a --query finds")
    if args.only is not None and (not args.export or args.query is not None):
        raise UserError("--only names a cluster for --export")
    if (args.like or args.unlike) and args.query is None:
        raise UserError("--like and --unlike belong to --query")
    return args


def name_and_file(text: str) -> tuple[str, str]:  # argparse's messages name these functions
    name, file = text.split("=", 1)
    return name, file


def number_or_auto(text: str) -> int | str:
    return text if text == "auto" else whole_number(text)


def name_and_weight(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    return name, float(weight or 1)
