"""What a command would run: what has results, what is missing, images to encode, a rough time."""

from collections import Counter

from crl.run.errors import Missing, UserError
from paper_tables.plan import Plan, Run, Settings
from paper_tables.tasks import SCRIPTS


class DryRun:
    """The runs of tables, as lines.

    Attributes:
        wrong: is any data set broken?
    """

    def __init__(self, plan: Plan, rows: dict[int, dict[str, list[Run]]], settings: Settings):
        self.plan, self.settings = plan, settings
        self.states: dict[str, str] = {}  # by command
        self.reasons: dict[str, int] = {}  # why something cannot be run -> its number
        self.encoded: dict[tuple[str, str], int] = {}  # images of each VLM on each data set
        self.wrong = False
        self.lines: list[str] = []
        for number, of_table in rows.items():
            self.lines.append(f"Table {number}. {plan.tables[number].title}")
            for row, runs in of_table.items():
                for run in dict.fromkeys(one for wanted in runs for one in wanted.in_order):
                    self.lines.append(f"  {row:11} {run.name:32} {self._state(run)}")
        self.lines += ["", *self._summary()]

    def _state(self, run: Run) -> str:
        """Its state, or that it was printed above."""
        if run.command in self.states:
            return "as above"
        try:
            if run.lacking:
                raise Missing(run.lacking)
            if run.kept():
                state = "has results"
            else:
                SCRIPTS[run.script].check(run.config)
                state = f"to do: {self._work(run)}"
        except Missing as error:
            state = f"lacks [{self._number(str(error))}]"
        except UserError as error:
            self.wrong = True
            state = f"wrong [{self._number(str(error))}]"
        self.states[run.command] = state
        return state

    def _number(self, reason: str) -> int:
        return self.reasons.setdefault(reason, len(self.reasons) + 1)

    def _work(self, run: Run) -> str:
        """The images to encode; those of a data set are kept, so the next run finds them."""
        vlm = run.vlm or ("demo" if self.settings.demo else "clip-b16")
        place = vlm, run.command if run.prepares else str(run.config.root)
        if place in self.encoded or not run.images:
            return "no more images"
        images = min(run.images, self.settings.images) if self.settings.demo else run.images
        self.encoded[place] = images
        return f"{images:,} images, {self._time(place)}"

    def _time(self, *places: tuple[str, str]) -> str:
        seconds = [self.encoded[vlm, of] / self.plan.speed.get(vlm, 1.0) for vlm, of in places]
        return rough(sum(seconds))

    def _summary(self) -> list[str]:
        counts = Counter(
            state.partition(" [")[0].partition(":")[0] for state in self.states.values()
        )
        said = ", ".join(f"{n} {state}" for state, n in counts.items())
        lines = [f"[{number}] {reason}" for reason, number in self.reasons.items()]
        if lines:
            lines.append(
                "scripts/check_data.py shows which data are there; scripts/download.py gets most"
            )
        lines.append(f"{len(self.states)} runs: {said}")
        if self.encoded:
            lines.append(
                f"to encode: {sum(self.encoded.values()):,} images, {self._time(*self.encoded)} on "
                "2 CPU cores, and some minutes per run for its scores; on a GPU not yet measured"
            )
        return lines


def rough(seconds: float) -> str:
    """
    >>> rough(20), rough(90), rough(10000)
    ('under a minute', 'about 2 min', 'about 3 h')
    """
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"about {seconds / length:.0f} {unit}"
    return "about a minute" if seconds > 40 else "under a minute"
