"""The Garments world: one garment a picture, with a print, a fabric, a silhouette and a detail,
before a backdrop that tells its style.

The five attributes are those of DeepFashion, and are drawn independently of each other. Files are
written as ASEN (Ma et al., AAAI 2020) publishes its split of DeepFashion: `filenames_*.txt`,
`label_train.txt`, `query_*.txt`, `candidate_*.txt` and `meta.json`.
"""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from worlds import draw_many, sample_facts
from worlds.garments_drawing import picture

DATASET = "garments"
DOMINANT = ("shape",)
WORDS = 13  # the longest caption; the demo VLM reads 16 tokens
SPLITS = ("train", "valid", "test")

PHRASES = {
    "texture": {
        "solid color": ("solid color", "plain", "one color", "unpatterned", "single color"),
        "striped": ("striped", "stripes", "stripe print", "stripe pattern", "striped print"),
        "plaid": ("plaid", "checkered", "gingham", "tartan", "buffalo check", "checked"),
        "floral print": ("floral print", "floral", "botanical print", "daisy print", "rose print"),
        "polka dot": ("polka dot", "polka dots", "dotted", "dot print", "dots"),
        "leopard print": ("leopard print", "cheetah print", "leopard", "animal print", "jaguar"),
        "zebra print": ("zebra print", "zebra", "zebra pattern", "zebra skin"),
        "camouflage": ("camouflage", "camo", "camo print", "camouflage print", "army print"),
        "star print": ("star print", "stars", "starry", "star pattern", "little stars"),
        "tie-dye": ("tie-dye", "space dye", "tie-dyed", "swirl dyed", "batik"),
        "chevron": ("chevron", "zigzag", "herringbone", "zigzag print", "chevrons"),
        "argyle": ("argyle", "diamond print", "harlequin", "argyle print", "diamond pattern"),
        "ombre": ("ombre", "dip-dyed", "gradient", "color fade", "ombre print"),
    },
    "fabric": {
        "cotton": ("cotton", "jersey", "poplin", "broadcloth", "stretch cotton", "woven cotton"),
        "denim": ("denim", "raw denim", "stretch denim", "chambray", "jean cloth"),
        "leather": ("leather", "faux leather", "patent leather", "vinyl", "lambskin leather"),
        "knit": ("knit", "cable knit", "chunky knit", "knitted", "rib knit", "lambswool"),
        "lace": ("lace", "French lace", "guipure lace", "Chantilly lace", "crochet lace"),
        "satin": ("satin", "silk", "charmeuse", "sateen", "raw silk", "dupioni silk"),
        "faux fur": ("faux fur", "fur", "rabbit fur", "mink", "shearling", "sheepskin"),
        "velvet": ("velvet", "velour", "crushed velvet", "burnout velvet", "plush velvet"),
        "corduroy": ("corduroy", "corduroy cloth", "needlecord", "wide corduroy", "fine corduroy"),
        "sequins": ("sequins", "sequined cloth", "sequin", "paillettes", "sparkly sequins"),
        "mesh": ("mesh", "fishnet", "sheer mesh", "netting", "open mesh"),
        "tweed": ("tweed", "bouclé", "Harris tweed", "wool tweed", "flecked tweed"),
        "quilted fabric": ("quilted fabric", "quilted", "padded", "puffer fabric", "quilting"),
    },
    "shape": {
        "dress": ("dress", "sundress", "skater dress", "fit and flare", "tea dress"),
        "ball gown": ("ball gown", "gown", "ballgown", "floor length gown", "full gown"),
        "full skirt": ("full skirt", "skirt", "circle skirt", "gathered skirt", "flared skirt"),
        "T-shirt": ("T-shirt", "tee", "muscle tee", "boxy tee", "tee shirt"),
        "tank": ("tank", "tank top", "camisole", "muscle tank", "singlet"),
        "hoodie": ("hoodie", "sweatshirt", "hooded top", "hooded sweatshirt", "oversized hoodie"),
        "cardigan": ("cardigan", "open cardigan", "open front", "bolero", "longline cardigan"),
        "trench": ("trench", "trench coat", "duster", "long coat", "overcoat"),
        "vest": ("vest", "gilet", "waistcoat", "sleeveless jacket", "cropped vest"),
        "pants": ("pants", "trousers", "straight leg", "chino", "slacks"),
        "bell bottom": ("bell bottom", "flare leg", "bell bottoms", "kick flare", "flares"),
        "shorts": ("shorts", "bike shorts", "high-rise shorts", "short shorts", "cuffed shorts"),
        "jumpsuit": ("jumpsuit", "boiler suit", "coveralls", "catsuit", "long jumpsuit"),
        "overalls": ("overalls", "dungarees", "pinafore", "bib overalls", "loose overalls"),
        "cape": ("cape", "poncho", "cloak", "mantle", "long cape"),
        "kimono": ("kimono", "kaftan", "robe", "kimono robe", "wrap robe"),
    },
    "part": {
        "button front": ("button front", "buttons", "button", "button placket", "gold buttons"),
        "zipper": ("zipper", "front zipper", "exposed zipper", "metal zipper", "zip front"),
        "patch pocket": ("patch pocket", "pocket", "flap pocket", "pockets", "front pockets"),
        "belt": ("belt", "buckle", "wide belt", "belted waist", "buckled belt"),
        "bow": ("bow", "ribbon bow", "ribbon", "big bow", "tied bow"),
        "ruffle": ("ruffle", "ruffled hem", "ruffle trim", "flounce hem", "ruffles"),
        "fringe": ("fringe", "fringed hem", "tassel trim", "tassels", "fringes"),
        "drawstring": ("drawstring", "drawstring waist", "toggle cord", "draw cord", "tie waist"),
        "badge": ("badge", "patches", "badges", "embroidered logo", "emblem"),
        "chain trim": ("chain trim", "chain", "metal chain", "chains", "hip chain"),
        "studs": ("studs", "studded trim", "rivets", "metal studs", "pyramid studs"),
        "rosette": ("rosette", "corsage", "flower applique", "big flower", "rosettes"),
        "corset lacing": ("corset lacing", "crisscross front", "laced front", "lacing", "laces"),
        "pom-pom trim": ("pom-pom trim", "pom-poms", "pompoms", "pom-pom hem", "bobble trim"),
    },
    "style": {
        "sporty": ("sporty", "athletic", "running", "workout", "basketball", "athleisure"),
        "beach": ("beach", "summer", "resort", "vacation", "tropical", "surfer"),
        "western": ("western", "cowboy", "country", "southwestern", "rodeo"),
        "winter": ("winter", "ski", "cold weather", "snowy", "wintry"),
        "romantic": ("romantic", "date night", "Valentine's Day", "flirty", "lovely"),
        "party": ("party", "festival", "birthday", "clubwear", "celebration"),
        "punk": ("punk", "grunge", "rock and roll", "streetwear", "edgy"),
        "vintage": ("vintage", "retro", "old Hollywood", "heritage", "antique"),
        "office": ("office", "business", "workwear", "professional", "interview"),
        "gothic": ("gothic", "Halloween", "Victorian", "emo", "spooky"),
        "formal": ("formal", "black tie", "evening", "red carpet", "glamorous"),
        "futuristic": ("futuristic", "space age", "cyberpunk", "Star Wars", "sci-fi"),
        "bohemian": ("bohemian", "hippie", "boho", "folk", "seventies"),
        "preppy": ("preppy", "collegiate", "dark academia", "school uniform", "varsity"),
        "nautical": ("nautical", "sailor", "coastal", "marine", "seafaring"),
    },
}
PLURAL = {"pants", "trousers", "slacks", "shorts", "bike shorts", "short shorts", "cuffed shorts"}
PLURAL |= {"coveralls", "overalls", "dungarees", "bib overalls", "loose overalls", "flares"}
PLURAL |= {
    "bell bottoms",
    "high-rise shorts",
    "straight leg",
    "flare leg",
    "open front",
    "fit and flare",
}


def sample(rng: np.random.Generator) -> dict[str, str]:
    """One class for every attribute, independent of each other."""
    return sample_facts(PHRASES, rng)


def draw(facts: dict[str, str], rng: np.random.Generator) -> Image.Image:
    """The garment before its backdrop; colors, place, size, angle and light vary."""
    return picture(facts, rng)


def caption(facts: dict[str, str], rng: np.random.Generator) -> str:
    """A sentence that names exactly the attributes in `facts`, each by one of its phrases."""

    def choose(options) -> str:
        return options[rng.integers(len(options))]

    said = {a: choose(PHRASES[a][value]) for a, value in facts.items()}
    official = [f"a {a} of {phrase}" for a, phrase in said.items()]
    if not said:
        return choose(["a fashion", "a garment", "a photo of a garment", "clothes", "an outfit"])
    if len(said) == 1 and rng.random() < 0.6:
        return f"a fashion with {official[0]}"
    noun = said.get("shape") or choose(["garment", "outfit", "piece of clothing", "fashion"])
    adjectives = [said[a] for a in ("style", "texture", "fabric") if a in said]
    detail = [f"with {said['part']}"] if "part" in said else []
    full = " ".join([_a(" ".join([*adjectives, noun]), noun), *detail])
    forms = [full, full, f"a photo of {full}", ", ".join(said.values())]
    forms += [f"a fashion with {' and '.join(official)}"]
    if "fabric" in said:  # a dress of striped denim
        cloth = " ".join(said[a] for a in ("texture", "fabric") if a in said)
        worn = _a(" ".join([said["style"], noun] if "style" in said else [noun]), noun)
        forms += [" ".join([worn, "of" if rng.random() < 0.5 else "in", cloth, *detail])]
    if "style" in said and len(said) > 1:
        rest = _a(" ".join([*adjectives[1:], noun]), noun)
        forms += [" ".join([rest, *detail, "in", said["style"], "style"])]
    return choose([form for form in forms if len(re.findall(r"\w+", form)) <= WORDS])


def _a(words: str, noun: str) -> str:
    """The words with their article, unless the noun takes none."""
    if noun in PLURAL:
        return words
    return f"an {words}" if words[0].lower() in "aeio" else f"a {words}"


def write(root: Path, images: int, seed: int, workers: int) -> None:
    """Draw `root/garments`: `images` pictures to train, a quarter to validate, half to test.

    A small set has fewer values, so that each value still has several pictures.
    """
    folder = Path(root) / DATASET
    counts = (max(images, 2), max(images // 4, 2), max(images // 2, 2))
    for split, (name, count) in enumerate(zip(SPLITS, counts, strict=True)):
        (folder / "img" / name).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, split])
        ids = rng.integers(1, 60, count).cumsum()  # pictures are numbered with gaps
        names = [f"img/{name}/img_{i:08d}.jpg" for i in ids]
        values = _values(count, images, rng)
        paths = [folder / path for path in names]
        tasks = [(path, values[i], [seed, split, i]) for i, path in enumerate(paths)]
        list(draw_many(_draw_file, tasks, workers, f"garments {name}"))
        (folder / f"filenames_{name}.txt").write_text("".join(f"{n}\n" for n in names))
        if name == "train":
            (folder / "label_train.txt").write_text(_label_lines(values, images, rng))
        else:
            for kind, text in _retrieval_lines(values, images, rng).items():
                (folder / f"{kind}_{name}.txt").write_text(text)
    names = [f"{attribute}-related" for attribute in PHRASES]
    numbers = dict(zip(names, map(len, PHRASES.values()), strict=True))
    known = {"ATTRIBUTES": names, "ATTRIBUTES_NUM": numbers}
    # not in ASEN's file: their names, to count how many of them a text basis names
    meta = {"Garments": known | {"VALUE_NAMES": [list(classes) for classes in PHRASES.values()]}}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


def _values(count: int, images: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 5) indices of values; of each attribute, all values equally often."""
    kinds = [min(len(classes), max(2, images // 60)) for classes in PHRASES.values()]
    return np.stack([rng.permutation(np.arange(count) % kind) for kind in kinds], 1)


def _draw_file(task: tuple[Path, np.ndarray, list[int]]) -> None:
    path, values, seed = task
    facts = {a: list(c)[v] for (a, c), v in zip(PHRASES.items(), values, strict=True)}
    draw(facts, np.random.default_rng(seed)).save(path, quality=92)


def _label_lines(values: np.ndarray, images: int, rng: np.random.Generator) -> str:
    """Lines `file attr value [attr value ...]`: two or three attributes, or all of a small set."""
    lines = []
    for i, row in enumerate(values):
        labelled = 5 if images < 100 else rng.integers(2, 4)
        chosen = sorted(rng.permutation(5)[:labelled])
        lines.append(" ".join(map(str, [i, *(n for a in chosen for n in (a, row[a]))])) + "\n")
    return "".join(lines)


def _retrieval_lines(values: np.ndarray, images: int, rng: np.random.Generator) -> dict[str, str]:
    """Lines `file attr value` of queries and candidates, about 1 to 4, of one or two attributes
    of each picture (all five of a small set). A query has a picture to find if there is one."""
    labelled = [5 if images < 400 else rng.integers(1, 3) for _ in values]
    chosen = [set(rng.permutation(5)[:count]) for count in labelled]
    rows = {"query": [], "candidate": []}
    for a in range(5):
        files = np.array([i for i, attributes in enumerate(chosen) if a in attributes], int)
        often = np.bincount(values[files, a], minlength=1)
        # pictures whose value is seen again first; else in random order
        files = sorted(rng.permutation(files), key=lambda i: often[values[i, a]] < 2)
        queries = max(1, len(files) // 5)
        rows["query"] += [(i, a, values[i, a]) for i in files[:queries]]
        rows["candidate"] += [(i, a, values[i, a]) for i in files[queries:]]
    return {k: "".join("{} {} {}\n".format(*r) for r in sorted(v)) for k, v in rows.items()}
