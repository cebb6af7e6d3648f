"""configs/tables.yaml -> the runs of each table, each with a resolved configuration."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crl.basis import BASES, TextBasis, basis_label
from crl.run.config import as_yaml, load_config
from crl.run.errors import Missing, UserError, explain, nearest
from crl.run.files import read_yaml, slug
from crl.run.results import read_cells
from crl.vlm import find_vlm
from paper_tables.tasks import SCRIPTS

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
OF_THE_MACHINE = {  # keys that change no result
    *("root", "outputs", "cache", "coco", "visual_genome"),
    *("device", "workers", "embed_batch", "figures"),
}
IMPORT = "clone https://github.com/XLearning-SCU/2025-NeurIPS-CRL and run import_official_bases.py"


# --- the file -------------------------------------------------------------------------------------


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunPlan(_Part):
    """An entry of `runs`; the head of tables.yaml says what its keys mean."""

    script: str
    paper: dict[str, Any] | None = None
    demo: dict[str, Any] | None = None
    set: dict[str, Any] = {}
    vlm: list[str] = []
    bases: dict[str, str] = {}
    images: int = 0
    first: list[str] = []


class TablePlan(_Part):
    """An entry of `tables`."""

    title: str
    paper: str = ""
    note: str = ""
    quoted: list[str] = []
    trained: list[str] = []
    runs: list[str] = []
    vlm: list[str] = []
    set: dict[str, Any] = {}
    demo: dict[str, Any] = {}
    varied: str = ""
    method: str = ""
    texts: list[int] = []
    demo_texts: list[int] = []
    rows: dict[str, dict[str, Any]] = {}
    lists: str = ""
    only_authors: bool = False

    def all_rows(self, demo: bool) -> dict[str, dict[str, Any]]:
        """The rows of an ablation and what each replaces; one without a name of other tables."""
        numbers = (demo and self.demo_texts) or self.texts
        return {str(n): {"texts": n} for n in numbers} or self.rows or {"": {}}


class Tolerance(_Part):
    """In percentage points; `standard_errors` of the difference of two means over seeds."""

    standard_errors: float = Field(gt=0)
    fixed: float = Field(ge=0)
    training: float = Field(ge=0)


class Plan(_Part):
    """configs/tables.yaml."""

    tolerance: Tolerance
    speed: dict[str, float]
    quick: dict[str, dict[str, Any]]
    runs: dict[str, RunPlan]
    tables: dict[int, TablePlan]

    @classmethod
    def load(cls, file: Path) -> "Plan":
        """Read and check the file, but for the configurations, which `resolve` checks.

        Raises:
            UserError: not a plan, or an unknown script, run, VLM, basis or table of the paper.
        """
        try:
            plan = cls.model_validate(read_yaml(file))
        except ValidationError as error:
            raise UserError(f"{file}: {explain(error)}") from error
        published = json.loads((CONFIGS / "paper_tables.json").read_text(encoding="utf-8"))

        def known(what: str, name: str, names: Any) -> None:
            if name not in names:
                raise UserError(f"{file}: unknown {what} {name!r}; {nearest(name, names)}")

        for run in plan.runs.values():
            known("script", run.script, SCRIPTS)
            for name in run.first:
                known("run", name, plan.runs)
            for name in run.bases.values():
                known("text basis", name, [basis.stem for basis in BASES.glob("*.yaml")])
        for table in plan.tables.values():
            if table.paper:
                known("table of the paper", table.paper, published)
            for name in table.runs:
                known("run", name, plan.runs)
        named = [run.vlm for run in plan.runs.values()] + [t.vlm for t in plan.tables.values()]
        for name in {vlm for vlms in named for vlm in vlms}:
            try:
                find_vlm(name)
            except UserError as error:
                raise UserError(f"{file}: {error}") from error
        return plan


# --- resolved -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        official: folder of the authors' lists.
        vlm: in place of the plan's; empty: the plan's.
    """

    data: Path
    outputs: Path
    official: Path
    vlm: list[str]
    demo: bool
    quick: bool

    @property
    def images(self) -> int:
        """How many the demo draws, see scripts/demo.sh."""
        return 600 if self.quick else 3000


@dataclass(eq=False)
class Run:
    """A script with a configuration.

    Attributes:
        name: in the plan, and its VLM; for messages.
        arguments: what follows the script's name on a command line.
        bases: criterion: name or file of its text basis.
        images: how often the VLM sees an image.
        lacking: why it cannot be run.
        partly: why not all of it can be run.
    """

    name: str
    script: str
    arguments: list[str]
    config: Any
    vlm: str
    bases: dict[str, str]
    images: int
    first: list["Run"]
    lacking: str
    partly: str

    @property
    def command(self) -> str:
        return shlex.join(["python", self.script, *self.arguments])

    @property
    def in_order(self) -> tuple["Run", ...]:
        """Those that must come before it, and itself."""
        return (*self.first, self)

    @property
    def task(self) -> str:
        """Its folder in outputs/."""
        return SCRIPTS[self.script].task

    @property
    def folder(self) -> Path:
        """Its results."""
        return self.config.outputs / self.task / self.config.name

    @property
    def prepares(self) -> bool:
        return SCRIPTS[self.script].prepares

    def do(self, known: dict) -> list[dict[str, Any]]:
        """Run it; -> its cells.

        Args:
            known: what earlier runs found for I, see the task scripts.

        Raises:
            Missing: data, weights, lists or files that are not there.
            UserError: all else that is wrong.
        """
        if self.lacking:
            raise Missing(self.lacking)
        do = SCRIPTS[self.script].do
        if self.script.startswith("classification"):
            return do(self.config, known.setdefault(self.script, {})).cells
        found = do(self.config)
        return found.cells if found else []

    def kept(self) -> list[dict[str, Any]]:
        """The cells that a run with these settings left on disk, maybe on another machine.

        Raises:
            UserError: a damaged results.json.
        """
        file = self.folder / "results.json"
        if not file.exists() or self.prepares:
            return []
        mine = _settings(self.config.model_dump(mode="json"))
        return [cell for cell in read_cells(file) if _settings(cell.get("config")) == mine]


def _settings(config: Any) -> dict[str, Any]:
    """The keys of a configuration that change a result."""
    config = config if isinstance(config, dict) else {}
    return {key: value for key, value in config.items() if key not in OF_THE_MACHINE}


def resolve(plan: Plan, number: int, settings: Settings) -> dict[str, list[Run]]:
    """The runs of a table by the row of its ablation; of other tables under "".

    Raises:
        UserError: a configuration with a wrong or unknown key or value.
    """
    table = plan.tables[number]
    more = table.set | (table.demo if settings.demo else {})
    rows: dict[str, list[Run]] = {}
    for row, replaced in table.all_rows(settings.demo).items():
        replaced = {"lists": table.lists} | replaced
        rows[row] = []
        for name in table.runs:
            usual = table.vlm or plan.runs[name].vlm or [""]
            for vlm in settings.vlm or ([""] if settings.demo else usual):
                context = Context(
                    plan, table, settings, replaced, vlm if plan.runs[name].vlm else ""
                )
                if run := context.run(name, more):
                    rows[row].append(run)
    return rows


class Texts(NamedTuple):
    """The text bases of a run.

    Attributes:
        bases: criterion: name or file.
        official: are they the authors'?
        values: what the configuration says of them.
        lacking: why there are none.
        partly: which of them are too short for the row.
    """

    bases: dict[str, str]
    official: bool
    values: dict[str, Any]
    lacking: str = ""
    partly: str = ""


class Context(NamedTuple):
    """What the runs of one row and VLM have in common.

    Attributes:
        row: what the row of an ablation replaces.
        vlm: the VLM; empty: that of the configuration.
    """

    plan: Plan
    table: TablePlan
    settings: Settings
    row: dict[str, Any]
    vlm: str

    def run(self, name: str, more: dict[str, Any], training: str = "") -> Run | None:
        """A run of the plan, with what the table replaces; None if it has no such part.

        Args:
            training: the name of the trainings that come before; empty: made of the texts and VLM.
        """
        spec, settings = self.plan.runs[name], self.settings
        chosen = spec.demo if settings.demo else spec.paper
        if chosen is None:
            return None
        file = CONFIGS / chosen["config"]
        own = read_yaml(file).get("name", file.stem)
        texts = self.texts(spec)
        training = training or self.training(own, spec, texts.official)
        first = [run for one in spec.first if (run := self.run(one, {}, training))]
        places = {
            "data": settings.data,
            "outputs": settings.outputs,
            "images": settings.images,
            "config": own,
            "training": training,
        }
        values = _filled(chosen | spec.set | more, places) | texts.values
        values |= {"outputs": str(settings.outputs)}
        values |= {"vlm": self.vlm} if self.vlm and spec.vlm else {}
        values |= self.plan.quick.get(spec.script, {}) if settings.quick else {}
        del values["config"]
        absent = [needed for needed in values.pop("needs", []) if not Path(needed).exists()]
        lacking = [*(run.lacking for run in first), texts.lacking]
        lacking += [f"{' and '.join(absent)}: not there"] if absent else []
        overrides = [f"{key}={as_yaml(value)}" for key, value in values.items()]
        return Run(
            name=f"{name} {self.vlm}".strip(),
            script=spec.script,
            arguments=["--config", str(file.relative_to(CONFIGS.parent)), *overrides],
            config=load_config(
                SCRIPTS[spec.script].config, ["--config", str(file), *overrides], ""
            ),
            vlm=self.vlm,
            bases=texts.bases,
            images=spec.images,
            first=first,
            lacking="; ".join(dict.fromkeys(filter(None, lacking))),
            partly=texts.partly,
        )

    def training(self, own: str, spec: RunPlan, official: bool) -> str:
        """A name that tells trainings with other texts or VLMs apart: `deepfashion-texts10`."""
        vlm = slug(self.vlm) if [self.vlm] != spec.vlm else ""
        number = f"texts{self.row['texts']}" if "texts" in self.row else ""
        return "-".join(filter(None, [own, "official" * official, vlm, number]))

    def texts(self, spec: RunPlan) -> Texts:
        """The authors' lists, all or none; else ours, if they can stand in."""
        if not spec.bases:
            return Texts({}, False, {})
        folder, lists = self.settings.official, self.row["lists"]
        names = {c: f"{name}_{lists}" if lists else name for c, name in spec.bases.items()}
        theirs = {c: folder / f"{name}.yaml" for c, name in names.items()}
        official = all(file.exists() for file in theirs.values())
        if not official and self.table.only_authors:
            why = f"the authors' lists are not in {folder}; {IMPORT}"
            return Texts({}, False, {}, lacking=why)
        bases = {c: str(file) for c, file in theirs.items()} if official else dict(spec.bases)
        values = {key: value for key, value in self.row.items() if key != "lists"}
        length = {c: len(TextBasis.load(name).texts) for c, name in bases.items()}
        wanted = self.row.get("texts", 0)
        short = [f"{basis_label(bases[c])} has {n} texts" for c, n in length.items() if n < wanted]
        if not short:
            return Texts(bases, official, values | {"bases": bases})
        why = f"{' and '.join(short)}, not {wanted}"
        long = {c: name for c, name in bases.items() if length[c] >= wanted}
        by_criterion = "criteria" in SCRIPTS[spec.script].config.model_fields
        if not (long and by_criterion):
            return Texts({}, official, values, lacking=why)
        return Texts(long, official, values | {"bases": long, "criteria": list(long)}, partly=why)


def _filled(value: Any, places: dict[str, Any]) -> Any:
    """`value` with $data and so on in its texts replaced."""
    if isinstance(value, dict):
        return {key: _filled(one, places) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, places) for one in value]
    return Template(value).safe_substitute(places) if isinstance(value, str) else value
