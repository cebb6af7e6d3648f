"""The table of the results of clustering.py, few_shot.py and retrieval.py."""

from typing import Any

from crl.run.tables import Table


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """One row per VLM, criterion and method, a column per metric, in percent: `mean ± standard
    deviation` over seeds. `names` is how many of the classes the basis names. Beside a model that
    is told the criterion: seconds to embed 1,000 images, "-" if all were in the cache."""
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["scores"]))
    timed = any(row["about"]["method"] == "instructed" for row in rows)
    header = ["VLM", "criterion", "method", "basis", "names", *metrics, *["s/1,000"] * timed]
    lines = []
    for row in rows:
        about, scores = row["about"], row["scores"]
        texts = f" ({about['texts']})" if "texts" in about else ""
        names = row.get("names", "-") if texts else "-"
        criterion = f"{about['data']} {about['criterion']}"
        head = [about["vlm"], criterion, about["method"], about["basis"] + texts, names]
        cells = [_mean(scores[m]) if m in scores else "-" for m in metrics]
        seconds = row.get("seconds_per_1000")
        cells += [f"{seconds:.1f}" if seconds else "-"] * timed
        lines.append([*head, *cells])
    return Table(title, header, lines, left=5)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Notes that a reader of the table needs."""
    bad = [(row["about"], row["left_out"]) for row in rows if row.get("left_out")]
    lines = (f"{a['vlm']}, {a['criterion']}: {n} unreadable image(s) left out" for a, n in bad)
    note = "(labels): has learned from labels; in clustering and retrieval from all: a ceiling"
    return [*dict.fromkeys(lines), *[note] * any("(labels)" in r["about"]["method"] for r in rows)]


def _mean(score: dict[str, Any]) -> str:
    return f"{score['mean']:.1f}" + ("" if score["std"] is None else f" ±{score['std']:4.1f}")
