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

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crl.basis import TextBasis, fold
from crl.run.errors import ArgumentParser, UserError
from crl.run.tables import Table

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


Lists = Iterator[tuple[str, str, list[str], int]]  # name in `PAPER`, variant, texts, line


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description="Turn the authors' word lists into text bases.")
    parser.add_argument("clone", type=Path, help="the folder of your clone of their repository")
    parser.add_argument("--out", type=Path, default=Path("configs/official_bases"))
    args = parser.parse_args(argv)
    # Everything is read and checked before anything is written.
    bases: dict[str, TextBasis] = {}
    for file in (MORE_DATA, LLM_PROMPT, OTHER_LLM, SCENES, FASHION):
        bases |= read_file(args.clone, file)
    for name, basis in bases.items():
        basis.save(args.out / f"{name}.yaml")
    report(bases)
    print(f"\n{len(bases)} bases written to {args.out}")


def read_file(clone: Path, file: str) -> dict[str, TextBasis]:
    """All lists in one of the authors' files, unchanged but for empty texts, which are left out."""
    read, bases = {SCENES: read_scenes, FASHION: read_fashion}.get(file, read_labels), {}
    try:
        source = (clone / file).read_text(encoding="utf-8")
        for name, variant, texts, line in read(source, file):
            bases[name + variant] = TextBasis(
                criterion=name.partition("_")[2],
                vlm_prompt=PAPER[name][0],
                allow_repeats=True,
                texts=tuple(text for text in texts if text.strip()),
                provenance={"repository": REPOSITORY, "file": file, "line": line},
            )
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{clone} holds no '{file}'; get a clone of the authors' repository with: "
                        f"git clone {REPOSITORY}") from None  # fmt: skip
    except (SyntaxError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"'{file}' is damaged ({error}); restore it with: git checkout -- '{file}'"
                        ) from error  # fmt: skip
    return bases


def read_labels(source: str, file: str) -> Lists:
    """The lists of `dataset_gptLabel_dict = {dataset: {criterion: [text, ...]}}`.

    A comment line in it is either a list that is commented out, `# "color0.5": [...],`, or a
    heading, `# deepseek`, for the lists up to the next heading. A list that is commented out twice
    (`# # ...`) was replaced by another one: it is ignored.
    """
    datasets = assigned(source, "dataset_gptLabel_dict")
    for dataset, criteria in zip(datasets.keys, datasets.values, strict=True):
        lists = [
            (key.lineno, key.value, ast.literal_eval(texts), True)
            for key, texts in zip(criteria.keys, criteria.values, strict=True)
        ]
        headings = {0: ""}
        for line, comment in comments(source):
            if not criteria.lineno <= line <= criteria.end_lineno:
                continue
            if re.match(r'"[\w.]+"\s*:\s*\[', comment):
                [(key, texts)] = ast.literal_eval("{" + comment + "}").items()
                lists.append((line, key, texts, False))
            elif comment and not comment.startswith("#"):
                headings[line] = comment
        for line, key, texts, live in sorted(lists, key=lambda item: item[0]):
            criterion, suffix = re.match(r"([a-z]*)(.*)", key).groups()
            if file != MORE_DATA:  # deepseek, gemini, claude; llm_prompt1 to 5
                heading = headings[max(above for above in headings if above < line)]
                variant = "_" + re.sub(r"\W+", "_", heading)
            elif suffix == "2000":
                variant = "_long"
            else:  # the authors' heading is '0, 0.5, 1.5', and the third key has no number
                variant = "" if live else f"_temperature{suffix or '1.5'}"
            if (name := f"{dataset.value}_{criterion}") in PAPER:
                yield name, variant, texts, line


def read_scenes(source: str, file: str) -> Lists:
    """`scenes = [...]`, and the longer list that is commented out."""
    node = assigned(source, "scenes")
    yield "genecis_scene", "", ast.literal_eval(node), node.lineno
    for line, comment in comments(source):
        if comment.startswith("scenes = ["):
            texts = ast.literal_eval(comment.removeprefix("scenes = "))
            yield "genecis_scene", "_long", texts, line


def read_fashion(source: str, file: str) -> Lists:
    """`gpt_labels = [[...], ...]`, a list per text of `prompt = ['a fashion with a ...', ...]`."""
    prompts = ast.literal_eval(assigned(source, "prompt"))
    names = {prompt: name for name, (prompt, _) in PAPER.items()}
    for prompt, node in zip(prompts, assigned(source, "gpt_labels").elts, strict=True):
        if name := names.get(f"{prompt}{{text}}"):
            yield name, "", ast.literal_eval(node), node.lineno


def assigned(source: str, name: str) -> Any:
    """The value of the last `name = ...` in the source, a node of its syntax tree."""
    assignments = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    values = [node.value for node in assignments if ast.unparse(node.targets[0]) == name]
    if not values:
        raise ValueError(f"it assigns no {name}")
    return max(values, key=lambda value: value.lineno)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each comment, without its first `#`."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.removeprefix("#").strip()


def report(bases: dict[str, TextBasis]) -> None:
    """Print a line per basis; a warning if its number of texts is not the paper's."""
    rows = []
    for name, basis in bases.items():
        paper = PAPER[name][1] if name in PAPER else "-"
        counts = len(basis.texts), len(set(map(fold, basis.texts))), paper
        rows.append([name, *map(str, counts), "{file}:{line}".format(**basis.provenance)])
    print(Table("Bases", ["basis", "texts", "distinct", "paper", "file"], rows).text())
    for name, (_, wanted) in PAPER.items():
        count = len(bases[name].texts) if name in bases else 0
        if count != wanted:
            print(f"warning: {name}: the paper says {wanted} texts, their list has {count}")


if __name__ == "__main__":
    main()
