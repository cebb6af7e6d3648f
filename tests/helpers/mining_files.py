"""Small files of captions and scene graphs, for the tests of mining."""

import io
import json
import random
import tarfile
from pathlib import Path


def graph(image: str, *relations: tuple[str, str, str], caption: str = "said") -> dict:
    keys = ("subject", "relation", "object")
    return {
        "image": image,
        "caption": caption,
        "relations": [dict(zip(keys, relation, strict=True)) for relation in relations],
    }


def write_jsonl(file: Path, items: list) -> Path:
    file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return file


def read_jsonl(file: Path) -> list:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_tar(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as shard:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    return file


def world(n: int = 400, seed: int = 0) -> list[dict]:
    """Captions of a world with rare and frequent words, several relations and captions per image."""
    draw = random.Random(seed)
    words = [f"w{i}" for i in range(40)]
    weights = [1 / (i + 1) for i in range(40)]
    return [
        graph(
            f"{draw.randrange(n * 3 // 4)}.jpg",
            *(
                (
                    draw.choices(words, weights)[0],
                    draw.choice(["on", "in front of"]),
                    draw.choices(words, weights)[0],
                )
                for _ in range(draw.randrange(4))
            ),
        )
        for _ in range(n)
    ]
