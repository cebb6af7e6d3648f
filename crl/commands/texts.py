r"""Ask an LLM for the texts of a criterion and save them as a text basis.

    crl texts --criterion color \
        --vlm-prompt "objects with the color of {text}" --out my_bases/color.yaml

The key is read from OPENAI_API_KEY. A local server needs none:

    ollama serve & ollama pull llama3.1
    crl texts ... --base-url http://localhost:11434/v1 --model llama3.1

Answers are kept in --cache-dir: a repeated command sends no request, and an interrupted one
continues where it stopped. Exit code 3: fewer texts than --number; the texts so far are saved.
"""

from crl.run.command import command

import os
import sys
from pathlib import Path

from crl.llm import LLM_PROMPTS, OPENAI, generate_basis
from crl.run.errors import ArgumentParser, UserError
from crl.run.files import CACHE


@command
def main(argv: list[str]) -> None:
    prompts = "\n".join(f"  {i}  {text}" for i, text in enumerate(LLM_PROMPTS, start=1))
    epilog = f"LLM prompts (paper, Table 12):\n{prompts}"
    parser = ArgumentParser(description=__doc__, epilog=epilog)
    add = parser.add_argument
    add("--criterion", required=True, help="what the texts describe, e.g. color")
    add("--vlm-prompt", required=True, help="'... {text} ...': the sentence that the VLM encodes")
    add("--out", required=True, type=Path, help="where to save the basis (.yaml)")
    add("--model", default="gpt-4o", help="the LLM, as the server names it (default: %(default)s)")
    url = os.environ.get("OPENAI_BASE_URL") or OPENAI
    add("--base-url", default=url, help="any OpenAI-compatible server (default: %(default)s)")
    add("--llm-prompt", type=int, default=1, help="one of the paper's prompts, see below")
    add("--temperature", type=float, default=1.0, help="default: %(default)s, as in the paper")
    add("--seed", type=int, default=0, help="default: %(default)s; servers may ignore it")
    add("--number", type=int, help="how many texts (default: as many as possible)")
    add("--examples", nargs="*", default=[], help="two or three texts that show what is meant")
    add("--cache-dir", type=Path, default=CACHE / "llm", help="default: %(default)s")
    add("--timeout", type=float, default=120.0, help="seconds per answer (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace --out if it exists")
    args = parser.parse_args(argv)
    if args.out.suffix not in {".yaml", ".yml"}:
        raise UserError(f"--out must end in .yaml, not {args.out.name!r}")
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out} exists; give another --out, or --overwrite")
    options = {key: value for key, value in vars(args).items() if key not in {"out", "overwrite"}}
    basis = generate_basis(**options)
    basis.save(args.out)
    count, rounds = len(basis.texts), basis.provenance["rounds"]
    llm = basis.provenance["llm"]
    print(f"{args.out}: {count} texts for {basis.criterion!r} by {llm} in {rounds} rounds")
    print(f"  first: {', '.join(basis.texts[:8])}")
    print(f"  the VLM will read: {basis.prompts[0]!r}")
    if args.number and count < args.number:
        missing = f"warning: {args.number - count} of {args.number} texts are missing"
        print(f"{missing}: {llm} gave only {count} distinct ones", file=sys.stderr)
        sys.exit(3)
