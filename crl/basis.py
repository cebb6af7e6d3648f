"""The text basis: an LLM's texts about a criterion, and the prompt in which a VLM reads them."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, ValidationInfo, field_validator

from crl.run.errors import UserError, explain, nearest
from crl.run.files import read_text, read_yaml, write_text

PACKAGE = Path(__file__).resolve().parent
# `pip install .` puts configs/bases into the package (pyproject.toml).
PLACES = (PACKAGE / "bases", PACKAGE.parent / "configs" / "bases")
BASES = next(folder for folder in PLACES if folder.is_dir())

NO_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories: control characters, line breaks, ...
WORDS = "zero one two three four five six seven eight nine ten".split()
NUMBERS = {str(number): word for number, word in enumerate(WORDS)}


class TextBasis(BaseModel, extra="forbid", frozen=True):
    """K texts that describe one criterion; each becomes one dimension of R = I Tᵀ."""

    criterion: str  # e.g. `color`
    vlm_prompt: str  # e.g. `objects with the color of {text}` (Table 13)
    allow_repeats: bool = False  # of a text, as in some lists of the paper's authors
    texts: tuple[str, ...]  # K, in order; distinct after folding case and white space
    provenance: dict[str, Any] = {}  # who or what wrote them and how (LLM, prompt, seed, date)

    @field_validator("vlm_prompt")
    @classmethod
    def _has_one_slot(cls, prompt: str) -> str:
        if prompt.count("{text}") != 1:
            raise ValueError("vlm_prompt must contain {text} exactly once")
        return prompt

    @field_validator("texts")
    @classmethod
    def _distinct_lines(cls, texts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not texts or not all(text.strip() for text in texts):
            raise ValueError("texts is empty, or holds an empty text")
        if odd := [t for t in texts if {unicodedata.category(char) for char in t} & NO_TEXT]:
            raise ValueError(f"{odd[0]!r} holds a line break or control character")
        twice = [text for text, count in Counter(map(fold, texts)).items() if count > 1]
        if twice and not info.data.get("allow_repeats"):
            raise ValueError(f"{twice[0]!r} stands twice")
        return texts

    @property
    def prompts(self) -> list[str]:
        """The K sentences that the VLM encodes, one per text, in order."""
        return [self.vlm_prompt.replace("{text}", text) for text in self.texts]

    @property
    def digest(self) -> str:
        """Changes whenever the K sentences or their order change."""
        return hashlib.sha256("\n".join(self.prompts).encode()).hexdigest()[:16]

    def names(self, classes: Iterable[str]) -> int:
        """How many of these classes stand among the texts by their name; `2` and `two` are equal.
        A basis that names the classes makes the task easier than a user's own would be."""
        texts, names = map(fold, self.texts), map(fold, classes)
        spelled = {NUMBERS.get(text, text) for text in texts}
        return sum(NUMBERS.get(name, name) in spelled for name in names)

    def first(self, k: int | None) -> "TextBasis":
        """The basis of the first `k` texts (the paper's Tables 5 to 9); None: of all."""
        if k is None:
            return self
        if not 1 <= k <= len(self.texts):
            raise UserError(f"the basis of {self.criterion!r} has {len(self.texts)} texts, not {k}")
        return self.model_copy(update={"texts": self.texts[:k]})

    @classmethod
    def of(cls, texts: Iterable[str], criterion: str) -> "TextBasis":
        """The basis of one's own texts, in the prompt that the texts of an LLM get in crl explore.
        A UserError if they do not fit."""
        prompt = f"a photo with the {criterion} of {{text}}"
        try:
            return cls(criterion=criterion, vlm_prompt=prompt, texts=tuple(texts))
        except ValidationError as error:
            raise UserError(f"the texts of {criterion}: {explain(error)}") from error

    @classmethod
    def load(cls, name: str | Path, first: int | None = None) -> "TextBasis":
        """Read a YAML file, a `.txt` with a text per line, whose name is the criterion, or a basis
        in `configs/bases/` by its name (`clevr4_color`, `everyday/mood`); `first`: its first texts
        only. A UserError if there is none, or it does not fit."""
        path = Path(name)
        if path.suffix == ".txt":
            lines = [line.strip() for line in read_text(path).splitlines()]
            return cls.of(filter(None, lines), path.stem).first(first)
        if path.suffix not in {".yaml", ".yml"} and not (path := BASES / f"{name}.yaml").exists():
            raise UserError(f"unknown text basis {str(name)!r}; {nearest(str(name), shipped())}")
        try:
            basis = cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise UserError(f"{path}: {explain(error)}") from error
        return basis.first(first)

    def save(self, path: Path) -> None:
        """Write as readable YAML, atomically."""
        data = self.model_dump(exclude_defaults=True, exclude={"texts"})
        data["texts"] = list(self.texts)
        write_text(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100))


def shipped() -> list[str]:
    """The names of the bases in `configs/bases/`."""
    files = BASES.rglob("*.yaml")
    return sorted(file.relative_to(BASES).with_suffix("").as_posix() for file in files)


def fold(text: str) -> str:
    """Case and white space folded: two texts with the same fold are the same text."""
    return " ".join(text.casefold().split())


def basis_label(name: str | Path) -> str:
    """The name of a basis in tables; of a file, its folder and name: `bases/clevr4_color`."""
    return "/".join(Path(name).with_suffix("").parts[-2:]) if Path(name).suffix else str(name)
