"""Turn the word lists of the authors' repository into text bases, for exact reproduction.

    git clone https://github.com/XLearning-SCU/2025-NeurIPS-CRL
    python scripts/import_official_bases.py 2025-NeurIPS-CRL --out configs/official_bases

The authors' lists are Python source code, some of them commented out. They are read with `ast` and
never executed. The authors' files, and the bases made from them:

    Clustering & Few-shot/utils/more_data.py         clevr4_color            tables 1 and 2
      "color2000", mostly commented out              clevr4_color_long       tables 5 to 9
      "color0", "color0.5", "color", commented out   ..._temperature0, 0.5, 1.5    table 11
    Clustering & Few-shot/utils/llm_prompt.py        clevr4_color_llm_prompt1 to 5  table 12
    Clustering & Few-shot/utils/other_llm.py         clevr4_color_deepseek, gemini, claude  table 10
    Similarity Retrieval/text_embedding.py           genecis_scene, genecis_scene_long  table 3
    Fashion Retrieval/mlp_training/load_text.py      deepfashion_texture, ...  table 4

Some of the lists hold a text twice. The paper's counts and numbers include it twice, and so do
these bases (`allow_repeats`).
"""

from crl.run.command import command

import argparse
import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from crl.basis import TextBasis, fold
from crl.run.errors import ArgumentParser, UserError, explain

REPOSITORY = "https://github.com/XLearning-SCU/2025-NeurIPS-CRL"
MORE_DATA = "Clustering & Few-shot/utils/more_data.py"
LLM_PROMPT = "Clustering & Few-shot/utils/llm_prompt.py"
OTHER_LLM = "Clustering & Few-shot/utils/other_llm.py"
SCENES = "Similarity Retrieval/text_embedding.py"
FASHION = "Fashion Retrieval/mlp_training/load_text.py"

# Name: the paper's VLM prompt, and the number of texts of the basis of tables 1 to 4.
PAPER = {
    "clevr4_texture": ("objects with the texture of {text}", 80),
    "clevr4_shape": ("objects with the shape of {text}", 318),
    "clevr4_color": ("objects with the color of {text}", 108),
    "clevr4_count": ("objects with the count of {text}", 60),
    "cards_number": ("a poker card with the number of {text}", 27),
    "cards_suits": ("a poker card with the card suits of {text}", 46),
    "genecis_scene": ("a photo with a scene of {text}", 229),
    "deepfashion_texture": ("a fashion with a texture of {text}", 97),
    "deepfashion_fabric": ("a fashion with a fabric of {text}", 133),
    "deepfashion_shape": ("a fashion with a shape of {text}", 214),
    "deepfashion_part": ("a fashion with a part of {text}", 433),
    "deepfashion_style": ("a fashion with a style of {text}", 186),
}


class Found(NamedTuple):
    """One of the authors' lists. `name` is a key of `PAPER`; `variant` is empty for the list of
    tables 1 to 4."""

    name: str
    variant: str
    texts: list[str]
    file: str
    line: int


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "clone", type=Path, help="the folder into which you cloned their repository"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("configs/official_bases"), help="default: %(default)s"
    )
    args = parser.parse_args(argv)

    # Everything is read and checked before anything is written.
    found = read_clone(args.clone)
    bases = {item.name + item.variant: (item, to_basis(item)) for item in found}
    try:
        for name, (_, basis) in bases.items():
            basis.save(args.out / f"{name}.yaml")
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    report(bases)
    print(f"\n{len(bases)} bases written to {args.out}")


def read_clone(clone: Path) -> list[Found]:
    """All lists in the clone."""
    found = []
    for file in (MORE_DATA, LLM_PROMPT, OTHER_LLM):
        found += read_labels(file, read_source(clone, file))
    found += read_scenes(read_source(clone, SCENES))
    found += read_fashion(read_source(clone, FASHION))
    return found


def read_source(clone: Path, file: str) -> str:
    try:
        return (clone / file).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{clone} holds no '{file}', so it is not a clone of the authors' repository; get one "
            f"with: git clone {REPOSITORY}"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{clone / file} is not a text file; {_again(file)}") from error


def read_labels(file: str, source: str) -> Iterator[Found]:
    """The lists of `dataset_gptLabel_dict = {dataset: {criterion: [text, ...]}}`.

    A comment line in it is either a list that is commented out, `# "color0.5": [...],`, or a
    heading, `# deepseek`, for the lists up to the next heading. A list that is commented out twice
    (`# # ...`) was replaced by another one: it is ignored.
    """
    datasets = _assigned(file, source, "dataset_gptLabel_dict", ast.Dict)
    for dataset_key, criteria in _pairs(file, datasets):
        dataset, pairs = _value(file, dataset_key), _pairs(file, criteria)
        lists = [(key.lineno, _value(file, key), _value(file, texts), True) for key, texts in pairs]
        headings = {0: ""}
        for line, comment in _comments(source):
            if not criteria.lineno <= line <= criteria.end_lineno:
                continue
            if re.match(r'"[\w.]+"\s*:\s*\[', comment):
                [(key, texts)] = _literal(file, line, "{" + comment + "}").items()
                lists.append((line, key, texts, False))
            elif comment and not comment.startswith("#"):
                headings[line] = comment
        for line, key, texts, live in sorted(lists, key=lambda item: item[0]):
            criterion, suffix = re.match(r"([a-z]*)(.*)", str(key)).groups()
            heading = headings[max(above for above in headings if above < line)]
            if f"{dataset}_{criterion}" in PAPER:
                variant = _variant(file, heading, suffix, live)
                yield Found(f"{dataset}_{criterion}", variant, texts, file, line)


def _variant(file: str, heading: str, suffix: str, live: bool) -> str:
    """The end of a basis's name, after its criterion."""
    if file != MORE_DATA:
        # deepseek, gemini, claude; llm_prompt1 to 5, changed to a valid file name
        return "_" + re.sub(r"\W+", "_", heading)
    if suffix == "2000":
        return "_long"
    # The authors' heading is '0, 0.5, 1.5', and the third key has no number.
    return "" if live else f"_temperature{suffix or '1.5'}"


def read_scenes(source: str) -> Iterator[Found]:
    """`scenes = [...]`, and the longer list that is commented out."""
    node = _assigned(SCENES, source, "scenes", ast.List)
    yield Found("genecis_scene", "", _value(SCENES, node), SCENES, node.lineno)
    for line, comment in _comments(source):
        if comment.startswith("scenes = ["):
            texts = _literal(SCENES, line, comment.removeprefix("scenes = "))
            yield Found("genecis_scene", "_long", texts, SCENES, line)


def read_fashion(source: str) -> Iterator[Found]:
    """`gpt_labels = [[...], ...]`, a list per text of `prompt = ['a fashion with a ...', ...]`."""
    prompts = _value(FASHION, _assigned(FASHION, source, "prompt", ast.List))
    lists = _assigned(FASHION, source, "gpt_labels", ast.List)
    by_prompt = {prompt: name for name, (prompt, _) in PAPER.items()}
    if len(prompts) != len(lists.elts):
        raise UserError(f"'{FASHION}' has {len(prompts)} prompts for {len(lists.elts)} lists")
    for prompt, node in zip(prompts, lists.elts, strict=True):
        if name := by_prompt.get(f"{prompt}{{text}}"):
            yield Found(name, "", _value(FASHION, node), FASHION, node.lineno)


def to_basis(item: Found) -> TextBasis:
    """The list as a basis, unchanged except that empty texts are left out."""
    if not isinstance(item.texts, list) or not all(isinstance(text, str) for text in item.texts):
        raise UserError(
            f"'{item.file}', line {item.line}: not a list of texts; {_again(item.file)}"
        )
    texts = tuple(text for text in item.texts if text.strip())
    if not texts:
        raise UserError(f"'{item.file}', line {item.line}: an empty list; {_again(item.file)}")
    try:
        return TextBasis(
            criterion=item.name.partition("_")[2],
            vlm_prompt=PAPER[item.name][0],
            allow_repeats=True,
            texts=texts,
            provenance={"repository": REPOSITORY, "file": item.file, "line": item.line},
        )
    except ValidationError as error:
        raise UserError(
            f"'{item.file}', line {item.line}: {explain(error)}; {_again(item.file)}"
        ) from error


def report(bases: dict[str, tuple[Found, TextBasis]]) -> None:
    """Print a line per basis; a warning if its number of texts is not the paper's."""
    width = max(map(len, bases))
    print(f"{'basis':{width}}  texts  distinct  paper  file")
    for name, (item, basis) in bases.items():
        distinct = len({fold(text) for text in basis.texts})
        paper = PAPER[item.name][1] if not item.variant else "-"
        print(
            f"{name:{width}}  {len(basis.texts):5}  {distinct:8}  {paper:>5}"
            f"  {item.file}:{item.line}"
        )
    for name, (_, paper) in PAPER.items():
        theirs = len(bases[name][1].texts) if name in bases else 0
        if theirs != paper:
            print(f"warning: {name}: the paper says {paper} texts, their list has {theirs}")


def _assigned(file: str, source: str, name: str, kind: type[ast.expr]) -> Any:
    """The value of the last `name = ...` in the file, a node of `kind`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"'{file}' is not valid Python ({error}); {_again(file)}") from error
    values = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    ]
    last = max(values, key=lambda value: value.lineno, default=None)
    if not isinstance(last, kind):
        raise UserError(f"'{file}' assigns no {name} that can be read; {_again(file)}")
    return last


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each comment, without its first `#`."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.removeprefix("#").strip()


def _literal(file: str, line: int, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise UserError(
            f"'{file}', line {line}: a list that cannot be read; {_again(file)}"
        ) from error


def _pairs(file: str, node: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """The keys and values of a dict."""
    if not isinstance(node, ast.Dict) or None in node.keys:  # None: **other
        raise UserError(f"'{file}', line {node.lineno}: not a plain dict; {_again(file)}")
    return list(zip(node.keys, node.values, strict=True))  # type: ignore[arg-type]


def _value(file: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UserError(
            f"'{file}', line {node.lineno}: not a plain list of texts; {_again(file)}"
        ) from error


def _again(file: str) -> str:
    return f"restore it with: git checkout -- '{file}' (or clone {REPOSITORY} afresh)"


if __name__ == "__main__":
    main()
