"""The table of the results of evaluate.py."""

from typing import Any

from crl.run.tables import Table

Rows = list[dict[str, Any]]  # of a results.json


def table(rows: Rows, title: str) -> Table:
    """One row per model and method; as columns the mAP in percent of each attribute, `mean` (over
    attributes, as in Table 4) and `overall` (over queries)."""
    attributes = dict.fromkeys(key for row in rows for key in row["scores"])
    columns = [key for key in attributes if key not in ("mean", "overall")] + ["mean", "overall"]
    lines = []
    for row in rows:
        about, scores = row["about"], row["scores"]
        model = about["vlm"]
        if about.get("label", model) != model:
            model += f" ({about['label']})"
        texts = f" ({about['texts']})" if "texts" in about else ""
        head = [about["data"], model, about["basis"] + texts, about["method"]]
        lines.append([*head, *(f"{scores[key]:.2f}" if key in scores else "-" for key in columns)])
    header = ["data", "model", "basis (texts)", "method", *columns]
    return Table(title, header, lines, left=4)


def notes(rows: Rows) -> list[str]:
    """Notes that a reader of the table needs."""
    lines = (
        f"{row['about']['data']}: {row['without_relevant']} of {row['queries']} queries have no "
        "relevant candidate; they score 0"
        for row in rows
        if row["without_relevant"]
    )
    return list(dict.fromkeys(lines))
