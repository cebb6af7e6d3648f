"""How concrete a word is: dog 4.9, idea 1.6 (Brysbaert, Warriner and Kuperman, 2014)."""

from pathlib import Path

from crl.run.errors import UserError
from similarity_retrieval.mining.captions import lines


def read_ratings(file: Path) -> dict[str, float]:
    """Word -> mean concreteness from 1 to 5 (Brysbaert, Warriner and Kuperman, 2014).

    Raises:
        UserError: not a tab-separated file with the columns Word and Conc.M, or a malformed line
            (the message has its number).
    """
    ratings: dict[str, float] = {}
    columns = None
    for where, line in lines(file):
        cells = line.rstrip("\r\n").split("\t")
        if columns is None:
            columns = cells
            if not {"Word", "Conc.M"} <= set(columns):
                raise UserError(
                    f"{where}: concreteness ratings are a tab-separated file whose first line "
                    f"names the columns Word and Conc.M, not {line.strip()[:80]!r}"
                )
            continue
        try:
            row = dict(zip(columns, cells, strict=True))
            rating = float(row["Conc.M"])
        except ValueError as error:
            raise UserError(f"{where}: not {len(columns)} columns with a number Conc.M") from error
        if not 1 <= rating <= 5:
            raise UserError(f"{where}: a concreteness is from 1 to 5, not {rating}")
        ratings[row["Word"].strip().lower()] = rating
    if not ratings:
        raise UserError(f"{file} holds no ratings")
    return ratings


def concreteness(word: str, ratings: dict[str, float]) -> float:
    """The rating of `word`, else of its singular, else -1 (GeneCIS's value for unknown words)."""
    for form in (word, word.removesuffix("s"), word.removesuffix("es")):
        if form in ratings:
            return ratings[form]
    return -1.0
