"""How concrete a word is: dog 4.9, idea 1.6 (Brysbaert, Warriner and Kuperman, 2014)."""

from pathlib import Path

from pydantic import BaseModel, Field

from crl.run.errors import UserError
from similarity_retrieval.mining.files import read_table


class _Rating(BaseModel):
    word: str
    concreteness: float = Field(alias="conc.m", ge=1, le=5)


def read_ratings(file: Path) -> dict[str, float]:
    """Word -> mean concreteness from 1 to 5, from a tab-separated file with Word and Conc.M.

    Raises:
        UserError: a malformed line (the message has its number), or no ratings.
    """
    ratings = {row.word.strip().lower(): row.concreteness for row in read_table(_Rating, file)}
    if not ratings:
        raise UserError(f"{file} holds no ratings")
    return ratings


def concreteness(word: str, ratings: dict[str, float]) -> float:
    """The rating of `word`, else of its singular, else -1 (GeneCIS's value for unknown words)."""
    forms = (word, word.removesuffix("s"), word.removesuffix("es"))
    return next((ratings[form] for form in forms if form in ratings), -1.0)
