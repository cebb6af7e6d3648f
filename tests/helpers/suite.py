"""Tiny folders in the official layouts of Stanford40, CMUface and the multiple-clustering suite."""

from pathlib import Path

from PIL import Image

from classification_clustering.datasets import CMUFACE_CLASSES, STANFORD40_CLASSES, TREES


def picture(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (5 * number, 250 - 5 * number, 100)).save(file)


def write_suite(root: Path) -> None:
    """Of each class of each criterion an image or more: 40 of Stanford40, 20 of CMUface, 4 of each
    other data set."""
    for data, (criteria, _) in TREES.items():
        for criterion in criteria:
            for number in range(4):
                picture(root / data / criterion / "ba"[number % 2] / f"{number}.png", 10 * number)
    lines: dict[str, list[str]] = {criterion: [] for criterion in STANFORD40_CLASSES}
    for number, action in enumerate(STANFORD40_CLASSES["action"]):
        picture(root / f"Stanford40/JPEGImages/{action}_001.jpg", number)
        for criterion, classes in STANFORD40_CLASSES.items():
            lines[criterion].append(f"{action}_001.jpg {classes[number % len(classes)]}\n")
    for criterion, of_criterion in lines.items():
        (root / f"Stanford40/{criterion}.txt").write_text("".join(reversed(of_criterion)))
    for number, person in enumerate(CMUFACE_CLASSES["identity"]):
        parts = [classes[number % len(classes)] for classes in CMUFACE_CLASSES.values()]
        for end in ("", "_2", "_4"):
            picture(root / f"faces/{person}/{'_'.join(parts)}{end}.pgm", number)
    (root / "faces/an2i/an2i_up_sad_open.bad").write_text("spoiled")
