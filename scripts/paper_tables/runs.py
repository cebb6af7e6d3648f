"""A run: a task script with a configuration, what it lacks, and the rows that it gave."""

from crl.run.command import advice, one_line

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from crl.basis import TextBasis, basis_label
from crl.run.config import Config, as_yaml, load_config
from crl.run.errors import Missing
from crl.run.files import read_yaml
from crl.run.results import read_rows

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
IMPORT = "clone https://github.com/XLearning-SCU/2025-NeurIPS-CRL and run import_official_bases.py"
SCRIPTS = {  # folder in outputs/: module and function
    "few_shot": "classification_clustering.few_shot:evaluate",
    "clustering": "classification_clustering.clustering:evaluate",
    "triplets": "similarity_retrieval.mine_triplets:mine_triplets",
    "combiner": "similarity_retrieval.train_combiner:train",
    "similarity_retrieval": "similarity_retrieval.evaluate:evaluate",
    "fashion_mlp": "fashion_retrieval.train_mlp:train",
    "fashion_backbone": "fashion_retrieval.train_backbone:train",
    "fashion_rivals": "fashion_retrieval.train_rival:train",
    "fashion_retrieval": "fashion_retrieval.evaluate:evaluate",
}
QUICK = {  # what --quick replaces: this is no protocol of the paper, so there are no verdicts
    "few_shot": {"seeds": 3, "figures": False},
    "clustering": {"seeds": 3, "figures": False},
    "combiner": {"epochs": 1},
    "fashion_mlp": {"epochs": 1},
    "fashion_backbone": {"epochs": 1, "triplets": 480},
    "fashion_rivals": {"epochs": 1, "triplets": 480},
}
NO_SETTINGS = {  # keys that change no row, or only say how many rows there are
    *"name root outputs cache coco visual_genome device workers batch_size figures".split(),
    *"criteria representation balance".split(),
}
OF_TEXTS = {"bases", "texts", "vlm_prompt", "null_space", "null_space_size", "sharpness"}


def script_of(task: str) -> tuple[str, Callable, type[Config]]:
    """Script, function, and class of its configuration."""
    module, _, name = SCRIPTS[task].partition(":")
    function = getattr(import_module(module), name)
    return module.replace(".", "/") + ".py", function, get_type_hints(function)["config"]


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        official: folder of the authors' lists.
        vlm: in place of the paper's; empty: the paper's.
        runs: all that were made, so that tables share them.
    """

    data: Path
    outputs: Path
    official: Path
    vlm: list[str]
    demo: bool
    quick: bool
    runs: dict[Any, "Run"] = field(default_factory=dict)

    def vlms(self, usual: list[str]) -> list[str]:
        """The VLMs that a table is about; "" is that of the demo's configuration."""
        return self.vlm or ([""] if self.demo else usual)


@dataclass(eq=False)
class Run:
    """A script with a configuration.

    Attributes:
        task: its folder in outputs/.
        bases: criterion: name or file of its text basis; none if they are lacking.
        before: the runs that it needs.
        lacking: why it cannot be run; partly: why not all of it can.
        rows: its results, once it has run; reason: why there are none.
    """

    task: str
    command: str
    config: Any
    vlm: str
    bases: dict[str, str]
    before: list["Run"]
    lacking: str
    partly: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""

    @property
    def name(self) -> str:
        after = f" after {self.before[-1].task}" if self.before else ""
        return f"{self.task} {self.config.name} {self.vlm}".strip() + after

    @property
    def folder(self) -> Path:
        return self.config.outputs / self.task / self.config.name

    @property
    def measures(self) -> bool:
        """Does it give rows? Else it prepares another run."""
        return SCRIPTS[self.task].endswith(":evaluate")

    def do(self, dry: bool = False) -> str:
        """Run it, or take the rows that another machine left; if `dry`, only look. -> its state:
        `done`, `has results`, `to do`, `lacks` or `wrong`."""
        try:
            self.rows = self.kept() if dry else []
            if self.rows:
                return "has results"
            try:
                needed = [self.lacking, *(one.reason for one in self.before)]
                if any(needed):
                    raise Missing("; ".join(dict.fromkeys(filter(None, needed))))
                if dry:
                    self._check()
                    return "to do"
                results = script_of(self.task)[1](self.config)
                self.rows = results.rows if self.measures else []
            except Missing:
                self.rows = self.kept()
                if not self.rows:
                    raise
                return "has results"
            return "done"
        except Exception as error:
            reason = advice(error)
            if reason is None:
                raise
            self.reason = one_line(reason)
            return "lacks" if isinstance(error, Missing) else "wrong"

    def _check(self) -> None:
        """Look for its data, quickly."""
        config, package = self.config, SCRIPTS[self.task].partition(".")[0]
        data = import_module(f"{package}.datasets")
        if package == "classification_clustering":
            for criterion in config.criteria:
                data.load(config.data, config.root, criterion, config.images)
        elif self.task == "similarity_retrieval":
            coco = config.coco or config.root / "coco"
            genome = config.visual_genome or config.root / "visual_genome"
            data.images(data.load(config.tasks, config.root), coco, genome)
        elif package == "fashion_retrieval":
            splits = [config.split] if self.measures else ["train", "valid"]
            fashion = data.load(config.root, config.dataset, config.images, splits)
            for split in splits:
                data.check_images(getattr(fashion, split).files)

    def kept(self) -> list[dict[str, Any]]:
        """The rows that these settings left in its folder, maybe on another machine."""
        file = self.folder / "results.json"
        rows = read_rows(file) if self.measures and self.bases and file.exists() else []
        return [row for row in rows if self._would_make(row)]

    def _would_make(self, row: dict[str, Any]) -> bool:
        config, about = self.config.model_dump(mode="json"), row["about"]
        ignored = NO_SETTINGS | (OF_TEXTS if about.get("basis") == "-" else set())
        if isinstance(config["vlm"], list):  # a row is of one of them
            ignored |= {"vlm"}
            if about.get("vlm") not in config["vlm"]:
                return False
        made_with = row.get("config", {})
        return all(made_with.get(key) == config[key] for key in config.keys() - ignored)


@dataclass(frozen=True)
class Texts:
    """The text bases of a run.

    Attributes:
        bases: criterion: name or file.
        keys: what the configuration says of them.
        lacking: why there are none; partly: which of them are too short, and left out.
    """

    bases: dict[str, str] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    lacking: str = ""
    partly: str = ""


NO_TEXTS = Texts()


def texts(
    settings: Settings,
    ours: dict[str, str],
    number: int | None = None,
    lists: str = "",
    only_authors: bool = False,
) -> Texts:
    """The authors' lists, all or none; else ours.

    Args:
        ours: criterion: our text basis; the authors' has the same name.
        number: use the first texts of each.
        lists: the end of the names of the authors' lists, e.g. `long`.
        only_authors: ours cannot stand in.
    """
    end = f"_{lists}" if lists else ""
    bases = {c: str(settings.official / f"{name}{end}.yaml") for c, name in ours.items()}
    official = all(Path(file).exists() for file in bases.values())
    if only_authors and not official:
        lacking = f"the authors' lists are not in {settings.official}; {IMPORT}"
        return Texts(keys={"bases": bases}, lacking=lacking)
    bases = bases if official else ours
    length = {name: texts_in(name) for name in bases.values()} if number else {}
    short = [f"{basis_label(name)} has {n} texts" for name, n in length.items() if n < number]
    partly = f"{' and '.join(short)}, not {number}" if short else ""
    bases = {c: name for c, name in bases.items() if not number or length[name] >= number}
    keys = ({"bases": bases} if official else {}) | ({"texts": number} if number else {})
    return Texts(bases, keys, partly=partly)


@cache
def texts_in(basis: str) -> int:
    return len(TextBasis.load(basis).texts)


def make(
    settings: Settings,
    task: str,
    config: str,
    texts: Texts = NO_TEXTS,
    vlm: str = "",
    before: list[Run] | None = None,
    needs: Sequence[Path] = (),
    ablation: bool = False,
    **keys: Any,
) -> Run:
    """A run; the same again if it was made before.

    Args:
        config: a file in configs/; `keys` replace what it says.
        vlm: "" takes that of the file.
        needs: files without which it cannot run.
        ablation: it gets a folder of its own, where rows for other texts stand side by side.
    """
    file, (script, _, kind) = CONFIGS / config, script_of(task)
    if ablation:
        keys |= {"name": f"{read_yaml(file).get('name', file.stem)}-ablations", "figures": False}
    keys |= texts.keys | {"outputs": settings.outputs} | ({"vlm": vlm} if vlm else {})
    keys |= QUICK.get(task, {}) if settings.quick else {}
    keys = json.loads(json.dumps(keys, default=str))  # paths as texts
    overrides = [f"{key}={as_yaml(value)}" for key, value in keys.items()]
    # A run with `criteria` can do without a basis that is too short.
    no_texts = "" if "criteria" in keys else texts.lacking or texts.partly
    lacking = [f"{path} is not there" for path in needs if not path.exists()]
    run = Run(
        task=task,
        command=shlex.join(["python", script, "--config", f"configs/{config}", *overrides]),
        config=load_config(kind, ["--config", str(file), *overrides], ""),
        vlm=vlm,
        bases={} if no_texts else texts.bases,
        before=before or [],
        lacking="; ".join(filter(None, [*lacking, no_texts])),
        partly=texts.partly,
    )
    return settings.runs.setdefault((run.command, run.lacking), run)
