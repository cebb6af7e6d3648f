"""The LLM step: a criterion in plain words -> the texts of its basis (paper, Table 12).

An LLM rarely says all it knows at once, so it is asked in rounds; each prompt lists the texts so
far. Every good answer is kept on disk: a repeated call costs nothing, an interrupted one continues.
"""

import json
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from crl.basis import TextBasis, fold
from crl.run.answers import MAX_TEXTS, count_texts, parse_texts
from crl.run.chat import OPENAI, Server
from crl.run.errors import UserError
from crl.run.files import CACHE
from crl.run.progress import progress

# Paper, Table 12, in its order. Number 1 made the bases of Tables 1 to 4.
LLM_PROMPTS = (
    "Generate common expressions to describe the {criterion}.",
    "List a wide variety of typical phrases used to characterize the {criterion}.",
    "Enumerate familiar terms or expressions people often use when referring to the {criterion}.",
    "Identify and list expressions frequently used to convey the concept of the {criterion}.",
    "How do people usually talk about the {criterion}?",
)

# Small models follow a form that is shown, and stumble where a schema forces one that is not.
# Without "a word or a short phrase" Qwen2.5 with 0.5 billion weights answers in sentences.
FORM = '{"texts": ["...", "..."]}'

MAX_TOKENS, TOKENS_PER_TEXT = 6_000, 16  # of one answer, with its thoughts
MAX_ROUNDS = 50  # limits the cost: some models never stop
STALE_ROUNDS = 2  # at temperature 1 a single round without a new text happens by chance


def generate_basis(
    criterion: str, vlm_prompt: str, *, model: str = "gpt-4o", base_url: str = OPENAI,
    llm_prompt: int = 1, temperature: float = 1.0, seed: int = 0, number: int | None = None,
    examples: Sequence[str] = (), cache_dir: Path = CACHE / "llm", timeout: float = 120.0,
    max_retries: int = 4,
) -> TextBasis:  # fmt: skip
    """Ask an LLM for the texts of `criterion`.

    Args:
        vlm_prompt: the sentence with `{text}` that the VLM encodes; it is stored in the basis.
        llm_prompt: which of `LLM_PROMPTS`, from 1.
        temperature: the paper uses 1 and tries 0, 0.5 and 1.5 (Table 11).
        seed: round r uses seed + r: a question with the same seed could only get the same answer.
        number: texts wanted, 1 to `MAX_TEXTS` (it may give fewer); None: as many as it gives.
        examples: two or three texts that show the model what is meant.
        cache_dir: folder where the answers are kept.

    A UserError for an invalid argument, a first answer without texts, and a server that fails."""
    if vlm_prompt.count("{text}") != 1:
        raise UserError(f"the VLM prompt must contain {{text}} exactly once, not {vlm_prompt!r}")
    if llm_prompt not in range(1, len(LLM_PROMPTS) + 1):
        raise UserError(f"there are LLM prompts 1 to {len(LLM_PROMPTS)}, not {llm_prompt}")
    wanted = MAX_TEXTS if number is None else number
    if not 1 <= wanted <= MAX_TEXTS:
        raise UserError(f"the number of texts must be 1 to {MAX_TEXTS}, not {number}")

    server = Server(base_url, timeout, max_retries)
    texts: dict[str, str] = {}  # fold(text) -> text, in order of arrival
    records: list[dict[str, Any]] = []
    stale = 0
    while len(texts) < wanted and stale < STALE_ROUNDS and len(records) < MAX_ROUNDS:
        before = len(texts)
        try:
            with progress(label=criterion, unit="texts", done=before, total=number) as bar:
                answered, record = server.answer(
                    build_prompt(criterion, llm_prompt, number, examples, list(texts.values())),
                    # "There are no others." is a valid answer, but not to the first question.
                    read=partial(parse_texts, may_be_empty=bool(texts)), model=model,
                    temperature=temperature, seed=seed + len(records), cache_dir=cache_dir,
                    max_tokens=MAX_TOKENS + TOKENS_PER_TEXT * (number or 0),
                    enough=partial(_enough, bar, before, wanted),
                )  # fmt: skip
        except UserError as error:
            if not texts:
                raise
            warnings.warn(f"the {before} texts so far are kept: {error}", stacklevel=2)
            break
        for text in answered:
            texts.setdefault(fold(text), text)
        stale = stale + 1 if len(texts) == before else 0
        records.append(record)

    provenance = {
        "llm": ", ".join(dict.fromkeys(record["model"] for record in records)),
        "base_url": server.public_url, "llm_prompt": llm_prompt,
        "prompt": build_prompt(criterion, llm_prompt, number, examples, []),
        "temperature": temperature, "seed": seed, "number": number or "as many as possible",
        "rounds": len(records), **{key: records[-1][key] for key in ("refused", "date", "client")},
    }  # fmt: skip
    return TextBasis(criterion=criterion, vlm_prompt=vlm_prompt, provenance=provenance,
                     texts=tuple(texts.values())[:wanted])  # fmt: skip


def _enough(bar: tqdm, before: int, wanted: int, answer: str) -> bool:
    """Show how many texts an answer holds so far; whether to stop it: it has enough, or a small
    model turns in a circle."""
    count, repeats = count_texts(answer)
    bar.update(max(0, before + count - bar.n))
    return repeats or before + count > wanted


def build_prompt(
    criterion: str, llm_prompt: int, number: int | None, examples: Sequence[str], have: list[str]
) -> str:
    """The question of one round: the paper's LLM prompt, and the format of the answer."""
    lines = [LLM_PROMPTS[llm_prompt - 1].format(criterion=criterion)]
    if examples:
        lines.append(f"For example: {json.dumps(list(examples), ensure_ascii=False)}.")
    amount = "as many as possible" if number is None else f"exactly {number - len(have)}"
    lines.append(f"Give {amount}{' more' if have else ''}. All items must be unique.")
    lines.append(
        f"Each item is a word or a short phrase. Answer with only JSON of this form: {FORM}"
    )
    if have:
        listed = json.dumps(have, ensure_ascii=False)
        lines.append(
            f"Do not repeat these, and give an empty list if there are no others: {listed}"
        )
    return "\n".join(lines)
