"""Playing cards that nobody drew for this: 24 free decks, 1,248 pictures, as the Cards data set.

    apt-get download gnome-cards-data && dpkg -x gnome-cards-data_*.deb gnome-cards
    python scripts/demo/real_decks.py --sheets gnome-cards/usr/share/aisleriot/cards
    python classification_clustering/clustering.py --config configs/demo/real_decks.yaml

Each sheet, an SVG file, has a suit in each row and a rank in each column. Sheets with other suits,
with four colors, or with the pictures of another one are left out. They need `rsvg-convert`
(apt-get install librsvg2-bin). The decks are GPL 3 or later; none is part of this repository.
"""

from crl.run.command import command

import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from classification_clustering.datasets import CARDS_CLASSES
from crl.run.errors import ArgumentParser, UserError
from crl.run.files import alone_in

LEFT_OUT = (
    "swiss-xvii", "anglo_modern_4_color", "atlasnye_skat", "neoclassical_4_color",
    "anglo_bitmap", "gnomangelo_bitmap",
)  # fmt: skip
SIDE = 128  # pixels, width and height of a picture
MARK = ".real_decks"  # in a folder that this script made
ROWS = 5  # of a sheet; the last has jokers and the back


def rendered(sheet: Path) -> Image.Image:
    """The sheet on white, with cards that are `SIDE` high."""
    if not (program := shutil.which("rsvg-convert")):
        raise UserError("rsvg-convert is missing: apt-get install librsvg2-bin")
    how = ["--height", str(ROWS * SIDE), "--keep-aspect-ratio", "--background-color", "white"]
    done = subprocess.run([program, *how, sheet], capture_output=True)
    if done.returncode:
        raise UserError(f"{sheet} cannot be drawn: {done.stderr.decode(errors='replace')[:200]}")
    return Image.open(io.BytesIO(done.stdout)).convert("RGB")


def cards(sheet: Image.Image) -> dict[tuple[str, str], Image.Image]:
    """{(suit, rank): its card in the middle of a white square}."""
    width, height = sheet.width / len(CARDS_CLASSES["number"]), sheet.height / ROWS
    cut = {}
    for row, suit in enumerate(CARDS_CLASSES["suits"]):
        for column, rank in enumerate(CARDS_CLASSES["number"]):
            left, top = column * width, row * height
            box = (round(left), round(top), round(left + width), round(top + height))
            card = Image.new("RGB", (SIDE, SIDE), "white")
            card.paste(sheet.crop(box), ((SIDE - round(width)) // 2, (SIDE - round(height)) // 2))
            cut[suit, rank] = card
    return cut


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    usual = Path("/usr/share/aisleriot/cards")
    parser.add_argument("--sheets", type=Path, default=usual, help="folder (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("data/real_decks"))
    args = parser.parse_args(argv)
    sheets = [file for file in sorted(args.sheets.glob("*.svg*")) if file.stem not in LEFT_OUT]
    if not sheets:
        raise UserError(f"{args.sheets} has no sheets; they are in Debian's gnome-cards-data: "
                        "see --help")  # fmt: skip
    target = args.out / "cards"
    if target.exists() and not (target / MARK).exists():
        raise UserError(f"{target} was not made by this script; choose another --out")
    with alone_in(args.out), tempfile.TemporaryDirectory(dir=args.out) as folder:
        made = Path(folder, "cards")
        for sheet in sheets:
            for (suit, rank), card in cards(rendered(sheet)).items():
                for tree in (f"number/{rank}", f"suits/{suit}"):
                    (made / tree).mkdir(parents=True, exist_ok=True)
                    card.save(made / tree / f"{sheet.stem}_{suit}_{rank}.png")
        (made / MARK).touch()
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    print(f"{args.out}: {len(sheets)} decks, {len(sheets) * 52:,} cards")


if __name__ == "__main__":
    main()
