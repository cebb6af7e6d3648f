"""CIG: the query of a rival, fused with that of an image that a text-to-image model made.

Wang et al., Generative Zero-Shot Composed Image Retrieval, CVPR 2025; lan-lw/ComposedImageGen (no
licence file). Written from its description; no code is copied.

An image model draws a pseudo target: the reference image as the condition changes it. A rival
(there: SEARLE or LinCIR) makes a query of the reference, and with the same prompt one of the drawn
image. CIG's query is their weighted sum.

Ours: the authors' training is not published, so the images are those of a folder, whoever made
them. Not found: an evaluation on GeneCIS, and its weight of the reference (there 0.5 for CIRR's
test set, 0.85 for its validation set, 0.7 for CIRCO, 0.9 for FashionIQ).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from crl.embed import ImageEmbeddings
from crl.projection import l2
from crl.run.errors import UserError
from similarity_retrieval.datasets import GeneCIS, Task, Templates
from similarity_retrieval.rivals.queries import Rival


def file_name(image: str, condition: str) -> str:
    """The name of the generated image for a reference (an id of GeneCIS) and a condition. All but
    letters, digits, and `,-.~` (in a condition also `_`) become `%` and two hexadecimal digits, as
    in web addresses, so that no two pairs share a name.

    >>> file_name("139", "teddy bear")
    '139_teddy%20bear.png'
    >>> file_name("2345:10,20,30,40", "color")
    '2345%3A10,20,30,40_color.png'
    """
    return f"{quote(image, safe=',')}_{quote(condition, safe=',')}.png"


def file_names(data: GeneCIS, templates: Templates) -> list[str]:
    """Of the images for `templates.pairs`, P names."""
    return [file_name(data.ids[image], data.conditions[c]) for image, c in templates.pairs[0]]


def generated_files(folder: Path, data: GeneCIS) -> dict[Task, list[Path]]:
    """The images for the pairs of each task. A UserError counts those that `folder` lacks."""
    files = {task: [folder / name for name in file_names(data, templates)]
             for task, templates in data.tasks.items()}  # fmt: skip
    distinct = dict.fromkeys(file for some in files.values() for file in some)
    if missing := [file.name for file in distinct if not file.is_file()]:
        lacks = f"lacks {len(missing)} of {len(distinct)} images ({', '.join(missing[:3])})"
        raise UserError(f"generated: {folder} {lacks}; make them with generate_images.py")
    return files


def fused(reference: np.ndarray, generated: np.ndarray, weight: float) -> np.ndarray:
    """Queries (P, D) of the references, of any length, and of the generated images -> (P, D), unit
    rows."""
    return l2(weight * l2(reference) + (1 - weight) * l2(generated))


@dataclass(frozen=True)
class CIG(Rival):
    """A rival whose queries are fused with those of generated images."""

    generated: np.ndarray  # (P, D), the embedding of the image of each pair, of any length
    weight: float  # of the reference

    def queries(self, images: np.ndarray, conditions: list[str]) -> np.ndarray:
        references = super().queries(images, conditions)
        return fused(references, super().queries(self.generated, conditions), self.weight)


def fusions(
    rivals: dict[str, Rival], generated: ImageEmbeddings, folder: Path, weight: float
) -> dict[str, Rival]:
    """{method as tables show it: CIG on each of the rivals}. It is named after the folder."""
    more: dict[str, Any] = {"generated": folder.name, "generated_content": generated.content}
    more["reference_weight"] = weight
    image, rows = np.asarray(generated.image), dict[str, Rival]()
    for row, rival in rivals.items():
        fusion = CIG(rival.network, rival.words, rival.prompt, rival.about | more, image, weight)
        rows[f"CIG (ours, {folder.name}) on {row}"] = fusion
    return rows
