"""The rivals of a task beside CRL: what each learns from, whether it learned, its cost, its scores."""

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
from paper_tables.numbers import TASKS
from paper_tables.runs import Run

SOME = 256  # images that are embedded to measure how long that takes
HEADER = ["method", "learns from", "learned", "parameters", "training, s", "1,000 images, s"]
TABLES = {  # the task, and how the columns end that are shown
    2: ("clustering", "/nmi"), 3: ("similarity_retrieval", "/R@1"), 4: ("fashion_retrieval", ""),
}  # fmt: skip
# A training's score that says whether it learned: CC, SCAN, Multi-MaP; GeneCIS; fashion
MEASURES = ("views_agree", "neighbours_agree", "cosine", "recall@1", "overall")
NOTES = {
    2: [
        "Scores: NMI. k-means, too, is told the number of clusters. CC and SCAN know no criterion: "
        "their clustering is the same for all. Multi-MaP is trained for each criterion (times are "
        "sums), on the images that it clusters: so it needs a training for new images",
    ],
    3: [
        "Scores: Recall@1. Not in CIG's times: the making of its images",
        "released: the prompt that lost its condition. These rows tell what the loss costs, beside "
        "`image`, which never had it; not which prompt the paper ran",
    ],
    4: ["Scores: mAP. A rival's time for 1,000 images includes their ranking"],
}
ABOUT = (
    "Seconds by the clock, whatever else the machine did: of a training with all that it needed "
    "first (embeddings in the cache cost nothing); to turn 1,000 image files into what is compared. "
    "learned: the loss in the first and the last epoch of each stage; a held-out score, if any"
)


@dataclass
class Entry:
    """A row of the table."""

    supervision: str = "nothing"
    seconds_per_1000: float | None = None
    trainings: dict[Path, dict[str, Any]] = field(default_factory=dict)  # folder: its record
    scores: dict[str, float] = field(default_factory=dict)  # in percent

    @property
    def seconds(self) -> float:
        """Of all its trainings; 0: it has none."""
        return sum(r["seconds"] + r.get("preparation_seconds", 0) for r in self.trainings.values())

    @property
    def mean(self) -> float:
        return fmean(self.scores.values())

    def cells(self, columns: list[str]) -> list[str]:
        learned = "; ".join(map(learning, self.trainings.values()))
        parameters = max((r.get("parameters", 0) for r in self.trainings.values()), default=0)
        numbers = [self.scores.get(column) for column in columns]
        numbers.append(self.mean if None not in numbers else None)
        speed = self.seconds_per_1000
        return [
            self.supervision, learned or "-", f"{parameters:,}", f"{self.seconds:.0f}",
            "-" if speed is None else f"{speed:.1f}",
            *("-" if number is None else f"{number:.1f}" for number in numbers),
        ]  # fmt: skip


def entries(number: int, runs: list[Run]) -> dict[str, Entry]:
    """{method: its row}, from the runs of Table 2, 3 or 4."""
    (task, ending), by_name, speeds = TABLES[number], dict[str, Entry](), dict[str, float | None]()
    for run in runs:
        trainings = {one.folder: one.record for one in run.before if one.record}
        for row in run.rows:
            about, scores = row["about"], list(TASKS[task].places([row]))
            if not scores:  # zero-shot
                continue
            entry = by_name.setdefault(scores[0].row, Entry())
            entry.scores |= {s.column: fmean(s.values) for s in scores if s.column.endswith(ending)}
            named = {folder.name for folder in trainings} | {f"{about['vlm']}*"}
            trained = {"rival", "combiner"} & about.keys() or about.get("label") in named
            records = list(trainings.values()) if trained else []
            entry.trainings |= trainings if trained else {}
            learns = [record.get("supervision", "-") for record in records]
            learns = [*(["texts"] if about["basis"] != "-" else []), *learns]
            entry.supervision = ", ".join(dict.fromkeys(learns)) or entry.supervision
            if about["method"] in ("chance", "random", "random draw"):
                continue
            vlm = str(run.config.vlm)
            if vlm not in speeds:
                speeds[vlm] = embedding_seconds(run)
            entry.seconds_per_1000 = inference_seconds(task, row, records, speeds[vlm])
    return by_name


def inference_seconds(
    task: str, row: dict[str, Any], records: list[dict[str, Any]], embedding: float | None
) -> float | None:
    """For 1,000 images, or queries of GeneCIS. `embedding`: of the VLM; rivals in clustering and
    fashion have networks of their own."""
    own = records and row["about"]["basis"] == "-"
    if own and task == "clustering":
        (record,) = records
        learns_again = record["form"] == "features"
        seconds = record["preparation_seconds"]
        seconds += record["seconds" if learns_again else "inference_seconds"]
        return 1000 * seconds / row["images"]
    if own and task == "fashion_retrieval":
        return 1000 * row["seconds"] / row["images"]
    if embedding is None:
        return None
    again = embedding if "generated" in row["about"] else 0.0
    return embedding + again + 1000 * row.get("query_seconds", 0.0) / row.get("templates", 1)


def embedding_seconds(run: Run) -> float | None:
    """Of a run's VLM for 1,000 of its images, from the files; None without them."""
    vlms = run.config.vlm
    try:
        vlm, images = load_vlm(vlms if isinstance(vlms, str) else vlms[0]), run.images()[:SOME]
    except UserError:
        return None
    start = time.perf_counter()
    embed_images(vlm, images, cache=None)
    return 1000 * (time.perf_counter() - start) / len(images)


def learning(record: dict[str, Any]) -> str:
    """`loss 5.3 to 3.7, -9.3 to -9.7; neighbours_agree 67`: of each stage, and the best score."""
    losses, stages = record["losses"], record["config"].get("stages")
    lengths = [stage["epochs"] for stage in stages] if stages else [len(losses)]
    parts = [losses[end - n : end] for n, end in zip(lengths, accumulate(lengths), strict=True)]
    loss = ", ".join(f"{part[0]:.2g} to {part[-1]:.2g}" for part in parts if part)
    best = record["best"] or {}
    return f"loss {loss}" + "".join(f", {m} {best[m]:.3g}" for m in MEASURES if m in best)


def table(number: int, by_name: dict[str, Entry]) -> Table:
    columns = list(dict.fromkeys(c for entry in by_name.values() for c in entry.scores))
    rows = [[name, *entry.cells(columns)] for name, entry in by_name.items()]
    title = f"{TASKS[TABLES[number][0]].title}: the rivals beside CRL, in percent"
    return Table(title, [*HEADER, *columns, "mean"], rows, left=3)


def draw(by_name: dict[str, Entry], title: str, file: Path) -> None:
    """The mean score against the seconds of training; without training, at the left edge."""
    complete = max(len(entry.scores) for entry in by_name.values())
    shown = {name: entry for name, entry in by_name.items() if len(entry.scores) == complete}
    times = [entry.seconds for entry in shown.values() if entry.seconds]
    edge = min(times, default=1.0) / 4
    figure, axis = plt.subplots(figsize=(8.5, 5))
    axis.set_xscale("log")
    height, gap = -1.0, 3.2
    for name, entry in sorted(shown.items(), key=lambda item: (item[1].seconds > 0, item[1].mean)):
        color = "tab:orange" if entry.seconds else "tab:blue"
        axis.plot(entry.seconds or edge, entry.mean, "o", color=color)
        height = entry.mean if entry.seconds else max(entry.mean, height + gap)  # names stay apart
        place = (entry.seconds or edge) * 1.06, height
        axis.text(*place, name, fontsize=8, verticalalignment="center")
    axis.axvline(edge, color="lightgray", zorder=0)
    axis.set(ylim=(0, 105), xlim=(edge / 1.3, max(times, default=1.0) * 3), title=title)
    axis.set(xlabel="seconds of training (left: none)", ylabel="mean score, percent")
    figure.tight_layout()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)
