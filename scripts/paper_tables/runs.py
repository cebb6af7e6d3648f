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
    "retrieval": "classification_clustering.retrieval:evaluate",
    "clustering_rivals": "classification_clustering.train_rival:train",
    "triplets": "similarity_retrieval.mine_triplets:mine_triplets",
    "combiner": "similarity_retrieval.train_combiner:train",
    "genecis_rivals": "similarity_retrieval.train_rival:train",
    "genecis_generated": "similarity_retrieval.generate_images:generate",
    "similarity_retrieval": "similarity_retrieval.evaluate:evaluate",
    "fashion_mlp": "fashion_retrieval.train_mlp:train",
    "fashion_backbone": "fashion_retrieval.train_backbone:train",
    "fashion_rivals": "fashion_retrieval.train_rival:train",
    "fashion_retrieval": "fashion_retrieval.evaluate:evaluate",
}
# What only --rivals starts: their trainings take long
RIVALS = {"clustering_rivals", "genecis_rivals", "genecis_generated", "fashion_rivals"}
QUICK = {  # what --quick replaces: this is no protocol of the paper, so there are no verdicts
    "few_shot": {"seeds": 3, "figures": False},
    "clustering": {"seeds": 3, "figures": False},
    "combiner": {"epochs": 1},
    "genecis_rivals": {"epochs": 1, "inversion_steps": 5},
    "fashion_mlp": {"epochs": 1},
    "fashion_backbone": {"epochs": 1, "triplets": 480},
    "fashion_rivals": {"epochs": 1, "triplets": 480},
}
IDLE = set(  # keys that change no row, or only say how many rows there are
    "name root outputs cache coco visual_genome device workers batch_size figures criteria "
    "representation balance rivals rival_prompts generated reference_weight".split()
)
OF_TEXTS = {"bases", "texts", "vlm_prompt", "null_space", "null_space_size", "sharpness"}


def script_of(task: str) -> tuple[str, Callable, type[Config]]:
    """-> script, function, class of its configuration"""
    module, _, name = SCRIPTS[task].partition(":")
    function = getattr(import_module(module), name)
    return module.replace(".", "/") + ".py", function, get_type_hints(function)["config"]


@dataclass(frozen=True)
class Settings:
    data: Path
    outputs: Path
    official: Path  # folder of the authors' lists
    vlm: list[str]  # in place of the paper's; empty: the paper's
    demo: bool
    quick: bool
    rivals: bool = False  # may their trainings be started?
    runs: dict[Any, "Run"] = field(default_factory=dict)  # all that were made: tables share them

    def vlms(self, usual: list[str]) -> list[str]:
        """The VLMs that a table is about; "" is that of the demo's configuration."""
        return self.vlm or ([""] if self.demo else usual)


@dataclass(eq=False)
class Run:
    task: str  # its folder in outputs/
    command: str
    config: Any
    vlm: str
    bases: dict[str, str]  # criterion: name or file of its text basis; none if they are lacking
    before: list["Run"]  # the runs that it needs
    lacking: str  # why it cannot be run
    partly: str  # why not all of it can be run
    allowed: bool = True  # may it be started? What has ended is taken in any case
    rows: list[dict[str, Any]] = field(default_factory=list)  # its results, once it has run
    reason: str = ""  # why there are none

    @property
    def name(self) -> str:
        last = self.before[-1] if self.before else None
        after = f" after {last.task} {last.config.name}" if last else ""
        return f"{self.task} {self.config.name} {self.vlm}".strip() + after

    @property
    def folder(self) -> Path:
        return self.config.outputs / self.task / self.config.name

    @property
    def measures(self) -> bool:
        """Does it give rows? Else it prepares another run."""
        return SCRIPTS[self.task].endswith(":evaluate")

    @property
    def record(self) -> dict[str, Any]:
        """The results.json of a training; empty without one."""
        try:
            record = json.loads((self.folder / "results.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return record if "losses" in record else {}

    @property
    def ended(self) -> bool:
        record = self.record
        return bool(record) and len(record["losses"]) >= self.config.epochs

    def do(self, dry: bool = False) -> str:
        """Run it, or take the rows that another machine left; if `dry`, only look. -> its state:
        `done`, `has results`, `to do`, `lacks` or `wrong`."""
        try:
            self.rows = self.kept()
            if self.rows and dry:
                return "has results"
            needed = [self.lacking, *(run.reason for run in self.before)]
            needed += [] if self.allowed or self.ended else ["--rivals was not given"]
            if reasons := list(filter(None, needed)):
                raise Missing("; ".join(dict.fromkeys(reasons)))
            if dry:
                self.images()
                return "to do"
            results = script_of(self.task)[1](self.config)
            self.rows = results.rows if self.measures else []
            return "done"
        except Exception as error:
            if isinstance(error, Missing) and self.rows:
                return "has results"
            self.rows, reason = [], advice(error)
            if reason is None:  # a bug
                raise
            self.reason = one_line(reason)
            return "lacks" if isinstance(error, Missing) else "wrong"

    def images(self) -> list[Any]:
        """Some of its data's images, at least; an error if they are not there."""
        config, package = self.config, SCRIPTS[self.task].partition(".")[0]
        data = import_module(f"{package}.datasets")
        files: list[Any] = []
        if package == "classification_clustering":
            for criterion in config.criteria:
                files = data.load(config.data, config.root, criterion, config.images).paths
        elif self.task == "similarity_retrieval":
            templates = data.load(config.tasks, config.root)
            files = data.images(templates, config.root, config.coco, config.visual_genome)
        elif package == "fashion_retrieval":
            splits = [config.split] if self.measures else ["train", "valid"]
            fashion = data.load(config.root, config.dataset, config.images, splits)
            for split in splits:
                files = getattr(fashion, split).files
                data.check_images(files)
        return files

    def kept(self) -> list[dict[str, Any]]:
        """The rows that these settings left in its folder, maybe on another machine."""
        file = self.folder / "results.json"
        rows = read_rows(file) if self.measures and self.bases and file.exists() else []
        return [row for row in rows if self._would_make(row)]

    def _would_make(self, row: dict[str, Any]) -> bool:
        config, about = self.config.model_dump(mode="json"), row["about"]
        keys = config.keys() - IDLE - (OF_TEXTS if about.get("basis") == "-" else set())
        if config.get("rivals"):  # it is there for their rows
            keys |= config.keys() & {"rivals", "generated"}
            if "rival" not in about:
                return False
        if isinstance(config["vlm"], list):  # a row is of one of them
            keys -= {"vlm"}
            if about.get("vlm") not in config["vlm"]:
                return False
        return all(row.get("config", {}).get(key) == config[key] for key in keys)


def make(
    s: Settings,
    task: str,
    config: str,  # a file in configs/; `keys` replace what it says
    vlm: str = "",  # "" takes that of the file
    ours: dict[str, str] | None = None,  # text bases; the authors' are used if all are there
    lists: str | None = None,  # end of the names of the authors' lists; ours cannot stand in
    number: int = 0,  # of the first texts to use; criteria that have fewer are left out
    before: Sequence[Run] = (),
    needs: Sequence[Path] = (),  # files without which it cannot run
    ablation: bool = False,  # in a folder of its own, where rows for other texts stand side by side
    **keys: Any,
) -> Run:
    """A run; the same again if it was made before."""
    file, (script, _, kind) = CONFIGS / config, script_of(task)
    lacking = [f"{path} is not there" for path in needs if not path.exists()]
    bases, end = ours or {}, "_long" if number else lists or ""
    official = {c: str(s.official / f"{name}{end}.yaml") for c, name in bases.items()}
    if official and all(Path(file).exists() for file in official.values()):
        bases = keys["bases"] = official
    elif lists is not None:
        lacking.append(f"the authors' lists are not in {s.official}; {IMPORT}")
        bases, keys["bases"] = {}, official
    partly = ""
    if number:
        keys["texts"] = number
        length = {c: texts_in(name) for c, name in bases.items()}
        short = [f"{basis_label(bases[c])} has {n} texts" for c, n in length.items() if n < number]
        if short:
            partly = f"{' and '.join(short)}, not {number}"
            bases = {c: name for c, name in bases.items() if length[c] >= number}
            keys |= {"bases": bases} if "bases" in keys else {}
            if bases and "criteria" in kind.model_fields:
                keys["criteria"] = list(bases)
            else:
                lacking, bases = [*lacking, partly], {}
    if ablation:
        keys |= {"name": f"{read_yaml(file).get('name', file.stem)}-ablations", "figures": False}
        keys |= {"representation": "paper"} if s.demo else {}
    keys |= {"outputs": s.outputs} | ({"vlm": vlm} if vlm else {})
    keys |= QUICK.get(task, {}) if s.quick else {}
    keys = json.loads(json.dumps(keys, default=str))  # paths as texts
    overrides = [f"{key}={as_yaml(value)}" for key, value in keys.items()]
    command = shlex.join(["python", script, "--config", f"configs/{config}", *overrides])
    key = command, "; ".join(lacking)
    if key not in s.runs:
        loaded = load_config(kind, ["--config", str(file), *overrides], "")
        allowed = s.rivals or task not in RIVALS
        s.runs[key] = Run(task, command, loaded, vlm, bases, list(before), key[1], partly, allowed)
    return s.runs[key]


@cache
def texts_in(basis: str) -> int:
    return len(TextBasis.load(basis).texts)
