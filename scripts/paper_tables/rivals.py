"""The rivals of a task beside CRL: what each learns from, whether it learned, costs, scores."""

import time
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt

from crl.embed import embed_images
from crl.run.errors import UserError
from crl.run.files import atomic_path
from crl.run.tables import Table
from crl.vlm import load_vlm
from paper_tables.numbers import FASHION, TASKS
from paper_tables.runs import Run

HEADER = ["method", "learns from", "learned", "parameters", "training, s", "1,000 images, s"]
TABLES = {  # the task, and how the columns end that are shown
    2: ("clustering", "/nmi"), 3: ("similarity_retrieval", "/R@1"), 4: ("fashion_retrieval", ""),
}  # fmt: skip
# A score that says whether a training learned: of CC, SCAN, Multi-MaP; in GeneCIS; in fashion
MEASURES = ("views_agree", "neighbours_agree", "cosine", "recall@1", "overall")
RANDOM = ("random", "random draw")
TRAINED = FASHION.keys() - {"universal", *RANDOM}  # methods of fashion retrieval


@dataclass
class Entry:
    """A row of the table."""

    supervision: str = "nothing"
    speed: float | None = None  # seconds for 1,000 images
    trainings: dict[Path, dict[str, Any]] = field(default_factory=dict)  # folder: its record
    scores: dict[str, float] = field(default_factory=dict)  # in percent

    @property
    def seconds(self) -> float:
        """Of all its trainings; 0: it has none."""
        return sum(r["seconds"] + r.get("preparation_seconds", 0) for r in self.trainings.values())

    @property
    def mean(self) -> float:
        return fmean(self.scores.values())


def entries(number: int, runs: list[Run]) -> dict[str, Entry]:
    """{method: its row}, from the runs of Table 2, 3 or 4."""
    (task, ending), speeds, by_name = TABLES[number], {}, {}
    for run in runs:
        trainings = {one.folder: one.record for one in run.before if one.record}
        for row in run.rows:
            about, scores = row["about"], list(TASKS[task].places([row]))
            if not scores:  # zero-shot
                continue
            trained = {"rival", "combiner"} & about.keys() or about["method"] in TRAINED
            records = trainings if trained or about.get("label", "").endswith("*") else {}
            learns = ["texts"] * (about["basis"] != "-")
            learns += [record.get("supervision", "-") for record in records.values()]
            entry = by_name.setdefault(scores[0].row, Entry())
            entry.supervision = ", ".join(dict.fromkeys(learns)) or "nothing"
            entry.trainings |= records
            entry.scores |= {s.column: fmean(s.values) for s in scores if s.column.endswith(ending)}
            if about["method"] in ("chance", *RANDOM):
                continue
            if records and about["basis"] == "-" and number != 3:  # a network of its own
                entry.speed = own_seconds(row, *records.values())
                continue
            if (vlm := str(run.config.vlm)) not in speeds:
                speeds[vlm] = embedding_seconds(run)
            if embedding := speeds[vlm]:
                query = row.get("query_seconds", 0) / row.get("templates", 1)
                entry.speed = embedding * (1 + ("generated" in about)) + 1000 * query
    trained = {c for entry in by_name.values() if entry.trainings for c in entry.scores}
    for entry in by_name.values() if trained else ():  # the demo's rivals have no Cards
        entry.scores = {c: score for c, score in entry.scores.items() if c in trained}
    return by_name


def own_seconds(row: dict[str, Any], *records: dict[str, Any]) -> float:
    """For 1,000 images, of a rival in clustering or fashion. Multi-MaP trains for each image."""
    seconds, last = row.get("seconds", 0), records[-1]
    if "form" in last:
        work = last["seconds" if last["form"] == "features" else "inference_seconds"]
        seconds = last["preparation_seconds"] + work
    return 1000 * seconds / row["images"]


def embedding_seconds(run: Run) -> float | None:
    """Of a run's VLM for 1,000 of its images, from the files; None without them."""
    vlms = run.config.vlm
    try:
        vlm, images = load_vlm(vlms if isinstance(vlms, str) else vlms[0]), run.images()[:256]
    except UserError:
        return None
    start = time.perf_counter()
    embed_images(vlm, images, cache=None)
    return 1000 * (time.perf_counter() - start) / len(images)


def learning(record: dict[str, Any]) -> str:
    """`loss 5.28 to 3.7, -9.3 to -9.7, neighbours_agree 67`: each stage, and the best score."""
    losses, stages = record["losses"], record["config"].get("stages")
    lengths = [stage["epochs"] for stage in stages] if stages else [len(losses)]
    parts = [losses[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)]
    loss = ", ".join(f"{part[0]:.3g} to {part[-1]:.3g}" for part in parts)
    best = record["best"] or {}
    return f"loss {loss}" + "".join(f", {m} {best[m]:.3g}" for m in MEASURES if m in best)


def table(number: int, by_name: dict[str, Entry]) -> Table:
    columns = list(dict.fromkeys(c for entry in by_name.values() for c in entry.scores))
    rows = []
    for name, entry in by_name.items():
        records, speed = entry.trainings.values(), entry.speed
        head = [name, entry.supervision, "; ".join(map(learning, records)) or "-"]
        head += [f"{max((r.get('parameters', 0) for r in records), default=0):,}"]
        head += [f"{entry.seconds:.0f}", "-" if speed is None else f"{speed:.1f}"]
        cells = [f"{entry.scores[c]:.1f}" if c in entry.scores else "-" for c in columns]
        rows.append([*head, *cells, "-" if "-" in cells else f"{entry.mean:.1f}"])
    title = f"{TASKS[TABLES[number][0]].title}: the rivals beside CRL, in percent"
    return Table(title, [*HEADER, *columns, "mean"], rows, left=3)


def draw(shown: Table, by_name: dict[str, Entry], file: Path) -> None:
    """The mean score against the seconds of training; without training, at the left edge."""
    complete = {row[0]: by_name[row[0]] for row in shown.rows if row[-1] != "-"}
    edge = min((e.seconds for e in complete.values() if e.seconds), default=1) / 4
    figure, axis = plt.subplots(figsize=(8.5, 5.5))
    names: list[tuple[float, float]] = []  # where they are: they stay apart
    for name, entry in sorted(complete.items(), key=lambda item: item[1].mean):
        place, height = entry.seconds or edge, entry.mean
        while any(abs(height - y) < 3 and max(place, x) < 9 * min(place, x) for x, y in names):
            height += 0.5
        names.append((place, height))
        axis.plot(place, entry.mean, "o", color="tab:orange" if entry.seconds else "tab:blue")
        axis.text(1.07 * place, height, name, fontsize=8, va="center")
    axis.axvline(edge, color="lightgray", zorder=0)
    axis.set(xscale="log", ylim=(0, 105), title=shown.title, ylabel="mean score, percent")
    axis.set(xlabel="seconds of training (on the left: no training)")
    axis.set_xlim(edge / 1.3, axis.get_xlim()[1] * 6)
    axis.xaxis.set_major_formatter("{x:.0f}")  # figures have no formulas, such as powers of ten
    axis.xaxis.set_minor_formatter("")
    figure.tight_layout()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130, bbox_inches="tight")
    plt.close(figure)
