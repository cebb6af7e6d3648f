"""Cluster with a multimodal language model that is asked about each image.

    python classification_clustering/ask.py data=clevr4 root=data/clevr4_100k criteria=color \\
        model=qwen3-vl base_url=http://localhost:8000/v1

`method=ictc` is IC|TC (ICLR 2024), see rivals/ictc.py; `method=captions` embeds a caption about the
criterion with the text encoder of `vlm`, for k-means: one request per image.

Says first what it will cost. Pictures are sent, at most 1024 pixels long, to a server on this
machine; to another only with send=yes. Answers are kept: what was answered is not asked again.

Writes <outputs>/clustering_rivals/<name>/<criterion>/: results.json, answers.json (what was said of
each image) and clusters.safetensors. Measure it beside others with clustering.py
"rivals=[<outputs>/clustering_rivals/<name>/<criterion>]".
"""

from crl.run.command import command

import json
import math
import time
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator
from safetensors.numpy import save

from classification_clustering.datasets import LOADERS, Labelled, load
from classification_clustering.rivals.ictc import DESCRIBE, sort_images
from crl.embed import embed_texts
from crl.images import UnreadableImage, open_image
from crl.instructed import scaled, words
from crl.run.chat import OPENAI, Refused, Server, as_jpeg
from crl.run.config import OneOrMore, RunConfig, load_config
from crl.run.errors import UserError, nearest
from crl.run.files import CACHE, alone_in, atomic_path, slug, write_text
from crl.run.progress import progress
from crl.run.results import digest
from crl.run.store import EMBEDDINGS, content_digest
from crl.vlm import load_vlm

PATCH = 28  # pixels of a side that cost a token, in Qwen's models
READ, WRITTEN = 150, 40  # tokens of a request beside its picture, and of an answer, roughly
MAX_TOKENS = 2000  # of an answer, with its thoughts


class AskConfig(RunConfig):
    """Keys of ask.py."""

    method: Literal["ictc", "captions"] = Field("ictc", description="IC|TC, or captions to embed")
    data: str = Field("folder", description=f"data set: {', '.join(LOADERS)}")
    root: Path = Field(Path("data"), description="folder that holds the data set")
    images: int | None = Field(None, description="how many images there must be")
    criteria: Annotated[list[str], OneOrMore] = Field(
        ["color"], min_length=1, description="one or more criteria"
    )
    model: str = Field("gpt-4o-mini", description="a model that sees images, as the server says")
    text_model: str | None = Field(None, description="ictc: for what needs no picture; none: model")
    base_url: str = Field(OPENAI, description="of the server, OpenAI-compatible")
    send: bool = Field(False, description="pictures may be sent to a server elsewhere")
    at_once: int = Field(8, gt=0, le=256, description="requests at once")
    timeout: float = Field(120, gt=0, description="seconds per answer")
    unlisted: Literal["random", "wrong"] = Field(
        "random", description="ictc: what an answer that is none of the names counts as"
    )
    seed: int = Field(0, ge=0, description="of unlisted answers, and the model's")
    vlm: str = Field("clip", description="captions: its text encoder embeds them")
    cache: Path = Field(EMBEDDINGS, description="folder in which embeddings are kept")
    answers: Path = Field(CACHE / "llm", description="folder in which answers are kept")

    @field_validator("data")
    @classmethod
    def _is_loaded(cls, data: str) -> str:
        if data not in LOADERS:
            raise ValueError(f"unknown data set {data!r}; {nearest(data, LOADERS)}")
        return data


class Asker:
    """Asks about the images of a data set, several at once."""

    def __init__(self, config: AskConfig, server: Server, data: Labelled) -> None:
        self.config, self.server, self.data = config, server, data
        self.requests = 0
        self.refused: list[str] = []  # files, and texts about them, in order

    def __call__(self, prompts: Sequence[str], pictures: bool = False, seed: int = 0) -> list[str]:
        """An answer to each prompt, in order, about the picture of its number or without pictures;
        "" where a safety filter refuses. A UserError if the server does not answer."""
        if not pictures and len({*prompts}) < len(prompts):  # the same question, the same answer
            distinct = [*dict.fromkeys(prompts)]
            answer_to = dict(zip(distinct, self(distinct, seed=seed), strict=True))
            return [answer_to[prompt] for prompt in prompts]
        self.requests += len(prompts)
        label, questions = "pictures" if pictures else "texts", [*enumerate(prompts)]
        with ThreadPool(self.config.at_once) as pool:

            def ask(question: tuple[int, str]) -> str | None:
                return self._answer(*question, pictures, seed)

            def in_order() -> Iterator[str | None]:
                yield from map(ask, questions[:1])  # alone: is the server there?
                yield from pool.imap(ask, questions[1:])

            bar = progress(in_order(), label=label, unit="answers", total=len(prompts))
            answers = [*bar]
        for (number, prompt), answer in zip(questions, answers, strict=True):
            if answer is None:
                self.refused.append(str(self.data.paths[number]) if pictures else prompt)
        return [answer or "" for answer in answers]

    def _answer(self, number: int, prompt: str, pictures: bool, seed: int) -> str | None:
        config = self.config
        model = config.model if pictures else config.text_model or config.model
        shown = [as_jpeg(picture(self.data.paths[number]))] if pictures else []
        how: Any = {"model": model, "seed": config.seed + seed, "cache_dir": config.answers}
        how |= {"temperature": 0.2 if pictures else 0.05, "max_tokens": MAX_TOKENS}
        try:
            return self.server.answer(prompt, str.strip, pictures=shown, schema=None, **how)[0]
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
    sample = [size for each in data.values() for size in map(picture_tokens, each.paths[:20])]
    read = pictures * float(np.mean(sample)) + requests * READ
    tokens = f"about {read:,.0f} tokens read, {requests * WRITTEN:,} written"
    return f"at most {requests:,} requests to {config.model}, {pictures:,} with a picture; {tokens}"


def picture_tokens(file: Path) -> int:
    width, height = picture(file).size
    return math.ceil(width / PATCH) * math.ceil(height / PATCH)


def run(config: AskConfig) -> None:
    """Ask about what is missing, and write a folder for each criterion."""
    server = Server(config.base_url, config.timeout)
    data = {c: load(config.data, config.root, c, config.images) for c in config.criteria}
    print(estimate(config, data))
    if not (config.send or server.is_local):
        print(f"nothing was sent; add send=yes to show the pictures to {server.public_url}")
        return
    parent = config.outputs / "clustering_rivals" / config.name
    for criterion, labelled in data.items():
        folder = parent / slug(criterion)
        with alone_in(folder):
            cluster(config, server, criterion, labelled, folder)


def cluster(
    config: AskConfig, server: Server, criterion: str, data: Labelled, folder: Path
) -> None:
    ask, start = Asker(config, server, data), time.perf_counter()
    count, k, told = len(data.paths), len(data.classes), words(criterion)
    record: dict[str, Any] = {"method": config.method, "data": config.data}
    record |= {"criteria": [criterion], "images": count, "vlm": config.model, "parameters": 0}
    record |= {"supervision": "a multimodal language model", "base_url": server.public_url}
    if config.method == "ictc":
        answer = sort_images(ask, count, told, k, config.unlisted, config.seed)
        descriptions, form = answer.descriptions, "probabilities"
        # A column more for the images that have no name: they are a cluster that matches no class.
        values = np.eye(k + 1, dtype=np.float32)[answer.clusters]
        record |= {"names": answer.names, "unlisted": answer.unlisted}
        clusters = [[*answer.names, "-"][number] for number in answer.clusters]
        print(f"{criterion}: {', '.join(answer.names)}")
        print(f"{answer.unlisted} of {count} answers are none of these: {config.unlisted}")
    else:
        descriptions, form = (
            ask([DESCRIBE.format(criterion=told)] * count, pictures=True),
            "features",
        )
        vlm = load_vlm(config.vlm, config.device)
        values = embed_texts(vlm, [text or "nothing" for text in descriptions], config.cache)
        record["text_encoder"], clusters = vlm.name, [""] * count
    seconds = time.perf_counter() - start
    record |= {"form": form, "seconds": seconds, "requests": ask.requests}
    record |= {"refused": ask.refused, "content": content(data)}
    if ask.refused:
        print(f"a safety filter refused {len(ask.refused)} requests, the first: {ask.refused[0]}")
    said = zip(map(str, data.paths), descriptions, clusters, strict=True)
    lines = [dict(zip(("file", "description", "cluster"), each, strict=True)) for each in said]
    write_text(folder / "answers.json", json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "results.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    with atomic_path(folder / "clusters.safetensors") as temporary:
        temporary.write_bytes(save({form: values}))
    print(f'beside others: clustering.py data={config.data} "rivals=[{folder}]"')


def content(data: Labelled) -> str:
    """As `crl.embed.ImageEmbeddings` calls it."""
    digests = [content_digest(file.read_bytes()) for file in data.paths]
    return digest(np.frombuffer(b"".join(digests), np.uint8))


@command
def main(argv: list[str]) -> None:
    run(load_config(AskConfig, argv, __doc__))


if __name__ == "__main__":
    main()
