"""Train the demo VLM from scratch: a small CLIP on freshly drawn pictures of the demo worlds.

    python scripts/demo/train_vlm.py

In phases: first captions name every attribute often, so that the image tower learns to see them;
then a world's dominant attributes almost always and the others rarely, as everyday captions do;
then shortly the others a little more often, so that the rarest (suits) are not forgotten. All that
again, to learn a garment's details. No picture is one of an evaluation: their seeds differ.

It takes about 160 minutes on 2 CPU cores. The same command goes on from the last checkpoint. The
scores that it prints are those of the model card, crl/assets/demo_vlm/README.md.
"""

from crl.run.command import command

import hashlib
import importlib
import json
import math
import re
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from worlds import WORLDS, draw_many

from crl.backends.torchvision_fix import import_torchvision
from crl.run.errors import ArgumentParser
from crl.run.files import CACHE, atomic_path, write_text
from crl.run.tables import Table
from crl.vlm import DEMO

TRAINING_SEED, TUNING_SEED = 1_000_003, 2_000_003  # the demo data is drawn from seed 0
IMAGE_SIZE, BATCH = 96, 256
CHECKPOINT = 150  # steps between two
# (steps, highest learning rate, steps after which the rate would be zero, chance that a caption
# names a dominant attribute, chance for each of the others)
PHASES = [
    (2850, 1e-3, 3600, 0.5, 0.5), (750, 5e-4, 750, 0.95, 0.2), (300, 5e-4, 300, 0.95, 0.3),
    (1300, 1e-3, 1500, 0.5, 0.5), (500, 5e-4, 500, 0.95, 0.2), (250, 5e-4, 250, 0.95, 0.3),
    (600, 5e-4, 600, 0.95, 0.15),
]  # fmt: skip
SINGLE = 0.25  # share of captions that name one attribute only, as the prompts of CRL do
UNKNOWN_WORD = 0.04  # share of words hidden, so that a word never seen reads as "some word"

MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 32},
    "text_cfg": {"context_length": 16, "width": 128, "heads": 4, "layers": 3},
}
PIXELS = {"mean": [0.5] * 3, "std": [0.25] * 3}
PREPROCESS = {**PIXELS, "interpolation": "bicubic", "resize_mode": "shortest"}

worlds = {name: importlib.import_module(f"worlds.{name}") for name in WORLDS}
# The attributes of all worlds in one row, e.g. ("clevr4", "texture"), ..., ("cards", "suits")
COLUMNS = [(name, attribute) for name, world in worlds.items() for attribute in world.PHRASES]
CLASSES = [worlds[name].PHRASES[attribute] for name, attribute in COLUMNS]  # class -> its phrases
OTHER_WORLD, UNSAID = -2, -1
blur = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
# The worlds take turns; those with more attributes come more often.
TURNS = ("clevr4", "scenes", "garments", "clevr4", "cards", "clevr4", "scenes", "garments")


def draw_training_set(work: Path, images: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, S, S, 3) uint8 and facts (N, A) int8, drawn once and kept under `work`."""
    pictures_file, facts_file = work / f"pictures-{images}.npy", work / f"facts-{images}.npy"
    if not facts_file.exists():
        work.mkdir(parents=True, exist_ok=True)
        shape = (images, IMAGE_SIZE, IMAGE_SIZE, 3)
        pictures = np.lib.format.open_memmap(pictures_file, "w+", np.uint8, shape)
        facts = np.empty((images, len(COLUMNS)), np.int8)
        for i, both in enumerate(draw_many(draw_one, list(range(images)), workers, "drawing")):
            pictures[i], facts[i] = both
        with atomic_path(facts_file) as temporary, open(temporary, "wb") as file:
            np.save(file, facts)
    return np.load(pictures_file, mmap_mode="r"), np.load(facts_file)


def draw_one(index: int, seed: int = TRAINING_SEED) -> tuple[np.ndarray, np.ndarray]:
    """One picture (S, S, 3), of the world whose turn it is, and its facts as class indices (A,)."""
    rng = np.random.default_rng([seed, index])
    world = TURNS[index % len(TURNS)]
    facts = worlds[world].sample(rng)
    picture = worlds[world].draw(facts, rng).resize((IMAGE_SIZE,) * 2, Image.Resampling.BICUBIC)
    if rng.random() < 0.4:
        picture.save(buffer := BytesIO(), "JPEG", quality=int(rng.integers(40, 95)))
        picture = Image.open(buffer)
    row = [
        list(classes).index(facts[attribute]) if name == world else OTHER_WORLD
        for (name, attribute), classes in zip(COLUMNS, CLASSES, strict=True)
    ]
    return np.asarray(picture), np.array(row, np.int8)


def write_captions(facts: np.ndarray, dominant: float, others: float, rng: np.random.Generator):
    """A caption for each row of `facts` (B, A), and its claims (B, A): a class or UNSAID."""
    captions, claims = [], np.where(facts == OTHER_WORLD, OTHER_WORLD, UNSAID).astype(facts.dtype)
    for row, claim in zip(facts, claims, strict=True):
        values = {c: list(CLASSES[c])[f] for c, f in enumerate(row) if f != OTHER_WORLD}
        world = worlds[COLUMNS[next(iter(values))][0]]
        columns = np.array([c for c, value in values.items() if CLASSES[c][value]])  # can be said
        chance = np.where([COLUMNS[c][1] in world.DOMINANT for c in columns], dominant, others)
        if rng.random() < SINGLE:
            named = rng.choice(columns, 1, p=chance / chance.sum())
        else:
            named = columns[rng.random(len(columns)) < chance]
        claim[named] = row[named]
        captions.append(world.caption({COLUMNS[c][1]: values[c] for c in named}, rng))
    return captions, claims


def build_tokenizer(out: Path):
    """A word-level tokenizer over the words of the worlds' captions, saved in `out`: CLIP's own
    vocabulary would cost 12 MB of vectors that no caption here ever trains."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(TRAINING_SEED)
    texts = [phrase for classes in CLASSES for phrases in classes.values() for phrase in phrases]
    for world in worlds.values():
        for _ in range(20_000):
            facts = world.sample(rng)
            texts.append(world.caption({a: c for a, c in facts.items() if rng.random() < 0.4}, rng))
    words = {word for text in texts for word in re.findall(r"\w+", text.lower())}
    # CLIP's text tower pools at the highest token id: the end token comes last.
    ids = {w: i for i, w in enumerate(["<pad>", "<unknown>", "<start>", *sorted(words), "<end>"])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\w]+"), "removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[(w, ids[w]) for w in ("<start>", "<end>")]
    )
    special = {"bos_token": "<start>", "eos_token": "<end>", "unk_token": "<unknown>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **special)
    fast.save_pretrained(out)
    return fast


def tokenize(tokenizer, texts: list[str]) -> torch.Tensor:
    """(B, 16) token ids."""
    options = {"padding": "max_length", "max_length": MODEL["text_cfg"]["context_length"]}
    return tokenizer(texts, return_tensors="pt", truncation=True, **options)["input_ids"]


def truth(facts: torch.Tensor, claims: torch.Tensor) -> torch.Tensor:
    """(B, B) bool: is caption j true of image i? All that it claims must hold."""
    return ((claims[None] == UNSAID) | (claims[None] == facts[:, None])).all(2)


def contrastive_loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Cross entropy both ways; the target is uniform over all true pairs of a row or column."""
    true = true.float()
    to_text = -(true / true.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    to_image = -(true / true.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (to_text + to_image) / 2


def augment(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change of place, light, contrast, focus and noise: (B, 3, S, S) in [0, 1], same shape."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(len(pictures), 1, 1, 1, generator=generator)

    pictures = F.pad(pictures, (6, 6, 6, 6), mode="reflect")
    dy, dx = torch.randint(0, 13, (2,), generator=generator).tolist()
    pictures = pictures[:, :, dy : dy + IMAGE_SIZE, dx : dx + IMAGE_SIZE]
    pictures = torch.lerp(pictures, blur(pictures), (uniform(-1.2, 1.0)).clip(0))
    pictures = pictures.clamp(0, 1) ** uniform(0.75, 1.35)
    pictures = (pictures - 0.5) * uniform(0.75, 1.25) + 0.5 + uniform(-0.12, 0.12)
    noise = torch.randn(pictures.shape, generator=generator)
    return (pictures + noise * uniform(-0.06, 0.06).clip(0)).clamp(0, 1)


def train(model, tokenizer, pictures: np.ndarray, facts: np.ndarray, work: Path) -> None:
    """AdamW over `PHASES`, each with its own cosine; resumes from `work/state.pt`."""
    schedule = [(i, phase) for phase in PHASES for i in range(phase[0])]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.02)
    start, state_file = 0, work / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    model.train()
    for step in range(start, len(schedule)):
        i, (_, highest, falling, dominant, others) = schedule[step]
        rate = highest * (0.5 + 0.5 * math.cos(math.pi * i / falling))
        optimizer.param_groups[0]["lr"] = rate * min(1, (i + 1) / 50)
        rng = np.random.default_rng([TRAINING_SEED, step])
        generator = torch.Generator().manual_seed(step)
        chosen = np.sort(rng.choice(len(facts), BATCH, replace=False))
        captions, claims = write_captions(facts[chosen], dominant, others, rng)
        tokens = tokenize(tokenizer, captions)  # (B, 16)
        hidden = torch.rand(tokens.shape, generator=generator) < UNKNOWN_WORD
        hidden &= (tokens > tokenizer.bos_token_id) & (tokens < tokenizer.eos_token_id)
        tokens = tokens.masked_fill(hidden, tokenizer.unk_token_id)
        images = torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).float() / 255
        images = (augment(images, generator) - 0.5) / 0.25  # (B, 3, S, S), as PREPROCESS says
        with torch.autocast("cpu", torch.bfloat16):
            image = model.encode_image(images.contiguous(memory_format=torch.channels_last))
        image = F.normalize(image.float(), dim=1)  # (B, D)
        text = model.encode_text(tokens, normalize=True)  # (B, D)
        logits = model.logit_scale.exp() * image @ text.T  # (B, B)
        true = truth(torch.from_numpy(facts[chosen]), torch.from_numpy(claims))
        loss = contrastive_loss(logits, true)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.logit_scale.data.clamp_(0, math.log(100))
        if step % 50 == 0:
            print(f"step {step} loss {loss:.3f}", flush=True)
        if (step + 1) % CHECKPOINT == 0 or step + 1 == len(schedule):
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            with atomic_path(state_file) as temporary:
                torch.save({**state, "step": step + 1}, temporary)


def save(model, out: Path) -> None:
    """An open_clip local-dir: half-precision weights and configuration."""
    weights = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    with atomic_path(out / "open_clip_model.safetensors") as temporary:
        save_file({k: v.contiguous() for k, v in weights.items()}, temporary)
    text_cfg = {**MODEL["text_cfg"], "hf_tokenizer_name": "demo", "vocab_size": model.vocab_size}
    config = {"model_cfg": {**MODEL, "text_cfg": text_cfg}, "preprocess_cfg": PREPROCESS}
    write_text(out / "open_clip_config.json", json.dumps(config, indent=2) + "\n")


CHANGES: dict[str, Callable] = {  # (B, 3, S, S) in [0, 1] -> the same
    "as drawn": lambda x: x,
    "darker": lambda x: x * 0.55,
    "blurred": blur,
    "noisy": lambda x: (x + 0.08 * torch.randn(x.shape, generator=torch.manual_seed(0))).clip(0, 1),
}


def zero_shot(model, tokenizer, images: int, workers: int) -> dict[str, list[float]]:
    """Percent of unseen pictures whose class is nearest: question -> one for each of `CHANGES`.

    An attribute with several classes is one question. Attributes that are there or not are one
    together, right if the answer is one of them. A class is the mean of 20 captions that name it.
    """
    questions: dict[str, list[int]] = {}  # label -> columns of the facts
    for column, (name, attribute) in enumerate(COLUMNS):
        several = sum(map(bool, CLASSES[column].values())) > 1
        questions.setdefault(f"{name} {attribute if several else 'objects'}", []).append(column)
    draw = partial(draw_one, seed=TUNING_SEED)
    drawn = zip(*draw_many(draw, list(range(images)), workers, "drawing"), strict=True)
    drawings, facts = map(np.stack, drawn)  # (N, S, S, 3) and (N, A)
    pictures = torch.from_numpy(drawings).permute(0, 3, 1, 2).float() / 255
    scores: dict[str, list[float]] = {label: [] for label in questions}
    for change in CHANGES.values():
        parts = [(change(part) - 0.5) / 0.25 for part in pictures.split(BATCH)]
        image = torch.cat([model.encode_image(part) for part in parts])  # (N, D)
        for label, columns in questions.items():
            rng = np.random.default_rng(0)
            named = [(*COLUMNS[c], value) for c in columns for value, phrases in CLASSES[c].items()
                     if phrases for _ in range(20)]  # fmt: skip
            texts = [worlds[name].caption({attribute: v}, rng) for name, attribute, v in named]
            text = model.encode_text(tokenize(tokenizer, texts), normalize=True)
            text = F.normalize(text.unflatten(0, (-1, 20)).mean(1), dim=1)  # (C, D)
            rows = facts[:, columns[0]] != OTHER_WORLD
            guess = (image[torch.from_numpy(rows)] @ text.T).argmax(1).numpy()
            truths = facts[rows][:, columns]  # (N', 1) a class, or (N', C) yes (0) or no (1)
            present = len(columns) > 1
            right = truths[range(len(guess)), guess] == 0 if present else truths[:, 0] == guess
            scores[label].append(100 * float(right.mean()))
    return scores


@command
def main(argv: list[str]) -> None:
    import_torchvision()
    from open_clip.model import CLIP

    parser = ArgumentParser(description=__doc__)
    add, kept = parser.add_argument, CACHE / "demo_vlm"
    add("--out", type=Path, default=DEMO, help="folder of the model")
    add("--work", type=Path, default=kept, help="pictures and checkpoints (7 GB)")
    add("--images", type=int, default=240_000, help="training pictures to draw")
    add("--workers", type=int, default=2, help="processes that draw")
    arguments = parser.parse_args(argv)
    # All that decides the weights; each recipe has its own checkpoint.
    recipe = [Path(__file__), *sorted(Path(__file__).with_name("worlds").glob("*.py"))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in recipe)).hexdigest()
    work = arguments.work / digest[:12]
    torch.manual_seed(TRAINING_SEED)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(arguments.out)
    config = {**MODEL, "text_cfg": {**MODEL["text_cfg"], "vocab_size": len(tokenizer)}}
    model = CLIP(**config).to(memory_format=torch.channels_last)
    pictures, facts = draw_training_set(work, arguments.images, arguments.workers)
    train(model, tokenizer, pictures, facts, work)
    save(model.eval(), arguments.out)
    with torch.inference_mode():
        scores = zero_shot(model, tokenizer, 3000, arguments.workers)
    rows = [[label, *(f"{score:.1f}" for score in row)] for label, row in scores.items()]
    print(Table("Zero-shot accuracy in percent", ["attribute", *CHANGES], rows).markdown())


if __name__ == "__main__":
    main()
