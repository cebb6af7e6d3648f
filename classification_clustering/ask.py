"""Cluster with a multimodal language model that is asked about each image.

    python classification_clustering/ask.py --config configs/clevr4.yaml criteria=color \
        model=qwen3-vl:8b base_url=http://localhost:11434/v1

`method=ictc` is IC|TC (ICLR 2024), see rivals/ictc.py; `method=captions` embeds a caption about the
criterion with the text encoder of `vlm`, for k-means: one request per image.

Says first what it will cost. Pictures are sent, at most 1024 pixels long, to a server on this
machine; to another only with send=yes. Answers are kept: what was answered is not asked again.

Writes <outputs>/clustering_rivals/<name>/<criterion>/: results.json, answers.json (what was said of
each image) and clusters.safetensors. Measure it with clustering.py
"rivals=[<outputs>/clustering_rivals/<name>/<criterion>]".
"""

from crl.run.command import command

import json
import time
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from safetensors.numpy import save

from classification_clustering.config import EvaluateConfig
from classification_clustering.datasets import Labelled, load
from classification_clustering.rivals.ictc import DESCRIBE, sort_images
from crl.backends.instructed import scaled, words
from crl.embed import embed_texts
from crl.images import UnreadableImage, open_image
from crl.run.chat import OPENAI, Refused, Server, as_jpeg
from crl.run.config import load_config
from crl.run.errors import UserError
from crl.run.files import CACHE, alone_in, atomic_path, slug, write_text
from crl.run.progress import progress
from crl.run.results import digest
from crl.run.store import content_digest
from crl.vlm import load_vlm

PATCH = 28  # pixels of a side that cost a token, in Qwen's models
READ, WRITTEN = 150, 40  # tokens of a request beside its picture, and of an answer, roughly
MAX_TOKENS = 2000  # of an answer, with its thoughts
USED = "name outputs device data root images criteria vlm precision cache send".split()
UNUSED = EvaluateConfig.model_fields.keys() - USED


class AskConfig(EvaluateConfig):
    """Keys of ask.py: of clustering.py's those in `USED`, and"""

    method: Literal["ictc", "captions"] = Field("ictc", description="IC|TC, or captions to embed")
    model: str = Field("gpt-4o-mini", description="of the server; it must see images")
    text_model: str | None = Field(None, description="ictc: for what needs no picture; none: model")
    base_url: str = Field(OPENAI, description="of the server, OpenAI-compatible")
    at_once: int = Field(8, gt=0, le=256, description="requests at once")
    timeout: float = Field(120, gt=0, description="seconds per answer")
    unlisted: Literal["random", "wrong"] = Field(
        "random", description="ictc: what an answer that is none of the names counts as"
    )
    seed: int = Field(0, ge=0, description="of unlisted answers, and the model's")
    answers: Path = Field(CACHE / "llm", description="folder in which answers are kept")


class Asker:
    """Asks about the images of a data set, several at once."""

    def __init__(self, config: AskConfig, server: Server, files: list[Path]) -> None:
        self.config, self.server, self.files = config, server, files
        self.requests = 0
        self.refused: list[str] = []  # files, and texts about them, in order

    def __call__(self, prompts: Sequence[str], pictures: bool = False, seed: int = 0) -> list[str]:
        """An answer to each prompt, in order, about the picture of its number or without pictures;
        "" where a safety filter refuses. A UserError if the server does not answer."""
        files = self.files if pictures else [None] * len(prompts)
        asked = [*zip(files, prompts, strict=True)]
        questions = [*dict.fromkeys(asked)]  # the same question has the same answer
        self.requests += len(questions)
        with ThreadPool(self.config.at_once) as pool:

            def in_order() -> Iterator[str | None]:
                yield from map(ask, questions[:1])  # alone: is the server there?
                yield from pool.imap(ask, questions[1:])

            def ask(question: tuple[Path | None, str]) -> str | None:
                return self._answer(*question, seed)

            how: Any = {"unit": "answers", "total": len(questions)}
            answers = [*progress(in_order(), label="pictures" if pictures else "texts", **how)]
        answer_to = dict(zip(questions, answers, strict=True))
        self.refused += [str(file or text) for (file, text), a in answer_to.items() if a is None]
        return [answer_to[question] or "" for question in asked]

    def _answer(self, file: Path | None, prompt: str, seed: int) -> str | None:
        config = self.config
        how: Any = {"model": config.model, "temperature": 0.2, "max_tokens": MAX_TOKENS}
        if file is None:
            how |= {"model": config.text_model or config.model, "temperature": 0.05}
        how |= {"seed": config.seed + seed, "cache_dir": config.answers, "schema": None}
        pictures = [as_jpeg(picture(file))] if file else []
        try:
            return self.server.answer(prompt, str.strip, pictures=pictures, **how)[0]
        except Refused:
            return None


def picture(file: Path) -> Image.Image:
    """The picture that is sent. A UserError if it cannot be read."""
    try:
        return scaled(open_image(file))
    except UnreadableImage as error:
        raise UserError(f"cannot read the image {file}: {error}; mend or remove it") from error


def estimate(config: AskConfig, data: dict[str, Labelled]) -> str:
    """What a run costs at most, if no answer is kept yet."""
    pictures = sum(len(each.paths) for each in data.values())
    requests = 3 * pictures + len(data) if config.method == "ictc" else pictures
    sizes = np.array([picture(file).size for each in data.values() for file in each.paths[:20]])
    read = pictures * np.ceil(sizes / PATCH).prod(axis=1).mean() + requests * READ
    tokens = f"about {read:,.0f} tokens read, {requests * WRITTEN:,} written"
    return f"at most {requests:,} requests to {config.model}, {pictures:,} with a picture; {tokens}"


def run(config: AskConfig) -> None:
    """Ask about what is missing, and write a folder for each criterion."""
    server = Server(config.base_url, config.timeout)
    data = {c: load(config.data, config.root, c, config.images) for c in config.criteria}
    print(estimate(config, data))
    if not (config.send or server.is_local):
        print(f"nothing was sent; add send=yes to show the pictures to {server.public_url}")
        return
    for criterion, labelled in data.items():
        folder = config.outputs / "clustering_rivals" / config.name / slug(criterion)
        with alone_in(folder):
            cluster(config, server, criterion, labelled, folder)


def cluster(
    config: AskConfig, server: Server, criterion: str, data: Labelled, folder: Path
) -> None:
    ask, start = Asker(config, server, data.paths), time.perf_counter()
    count, k, told = len(data.paths), len(data.classes), words(criterion)
    record: dict[str, Any] = {"method": config.method, "data": config.data, "vlm": config.model}
    record |= {"criteria": [criterion], "images": count, "base_url": server.public_url}
    if config.method == "ictc":
        answer = sort_images(ask, count, told, k, config.unlisted, config.seed)
        descriptions, form = answer.descriptions, "probabilities"
        # A column more: what has no name is a cluster that matches no class.
        values = np.eye(k + 1, dtype=np.float32)[answer.clusters]
        record |= {"names": answer.names, "unlisted": answer.unlisted}
        print(f"{criterion}: {', '.join(answer.names)}")
        print(f"{answer.unlisted} of {count} answers are none of these: {config.unlisted}")
    else:
        form, questions = "features", [DESCRIBE.format(criterion=told)] * count
        descriptions = ask(questions, pictures=True)
        vlm = load_vlm(config.vlm[0], config.device, config.precision)
        values = embed_texts(vlm, [text or "nothing" for text in descriptions], config.cache)
        record["text_encoder"] = vlm.name
    digests = b"".join(content_digest(file.read_bytes()) for file in data.paths)
    record |= {"form": form, "content": digest(np.frombuffer(digests, np.uint8)), "parameters": 0}
    record |= {"seconds": time.perf_counter() - start, "requests": ask.requests}
    record |= {"refused": ask.refused, "supervision": "a multimodal language model"}
    if ask.refused:
        print(f"a safety filter refused {len(ask.refused)} requests, the first: {ask.refused[0]}")
    answers = dict(zip(map(str, data.paths), descriptions, strict=True))
    for name, content in (("answers", answers), ("results", record)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_text(folder / f"{name}.json", text + "\n")
    with atomic_path(folder / "clusters.safetensors") as temporary:
        temporary.write_bytes(save({form: values}))
    print(f'measure it: clustering.py data={config.data} "rivals=[{folder}]"')


@command
def main(argv: list[str]) -> None:
    run(load_config(AskConfig, argv, __doc__, unused=UNUSED))


if __name__ == "__main__":
    main()
