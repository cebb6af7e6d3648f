"""Vision-language models (VLMs) behind one contract, loaded by name.

    vlm = load_vlm("clip")
    I = vlm.encode_images(batch)    # (B, D), or (B, Q, D) if an image has Q vectors
    T = vlm.encode_texts(prompts)   # (K, D)

Nothing here is L2-normalised: that is the caller's one visible step.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from crl.checkpoints import available_device, explained, import_torchvision, stored_shapes
from crl.errors import UserError, nearest

DEMO = Path(__file__).resolve().parent / "assets" / "demo_vlm"
ALIASES = {  # the paper's VLMs; OpenAI and MetaCLIP weights were trained with QuickGELU
    "clip": "open_clip:ViT-B-32-quickgelu/openai",
    "clip-b16": "open_clip:ViT-B-16-quickgelu/openai",
    "metaclip": "open_clip:ViT-B-32-quickgelu/metaclip_400m",
}
WEIGHTS = (  # in an open_clip folder, in open_clip's own order of preference
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
HUB = {"align": "kakaobrain/align-base", "blip2": "Salesforce/blip2-itm-vit-g"}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class VLM(Protocol):
    """What the rest of CRL knows about a vision-language model.

    Attributes:
        name: the name it was loaded by.
        dim: D, the width of both embeddings.
        device: where the model computes and where the embeddings stay; callers move them.
        fingerprint: changes whenever weights, architecture, preprocessing, tokenizer or precision
            change an embedding. Costs one pass over the weights.
    """

    name: str
    dim: int
    device: torch.device

    @property
    def fingerprint(self) -> str: ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """An image of any mode -> (3, H, W) float32. Called from several threads at once."""

    def encode_images(self, batch: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D), or (B, Q, D) for Q vectors an image. float32, not normalised."""

    def encode_texts(self, texts: list[str]) -> Tensor:
        """K texts -> (K, D), float32, not normalised. A text's row does not depend on the others;
        what exceeds the model's context length is cut off."""


def load_vlm(
    name: str,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> "LoadedVLM":
    """Load a VLM in eval mode.

    Args:
        name: `clip`, `clip-b16`, `metaclip`, `align`, `blip2` or `demo`;
            `open_clip:<model>/<tag>` with any model and tag of open_clip;
            `open_clip:<model>/<file>` with a checkpoint file (absolute path: two slashes);
            or a folder: open_clip's (open_clip_config.json) or transformers' ALIGN or BLIP-2.
        device: default CUDA if there is a GPU, else the CPU.
        precision: of the forward pass. `bf16` and `fp16` are autocast; the weights stay float32.

    Raises:
        UserError: unknown name; no weights, or weights, preprocessing and model that do not
            match; a damaged checkpoint or one that holds code; no such device.
    """
    if precision not in PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; {nearest(precision, PRECISIONS)}")
    source = find_vlm(name)
    device = available_device(device)
    import_torchvision()
    if source.startswith("open_clip:"):
        parts = _open_clip(source.removeprefix("open_clip:"))
    elif name == "align":
        parts = _align(source)
    elif name == "blip2":
        parts = _blip2(source)
    else:
        parts = _folder(Path(source))
    return LoadedVLM(name, parts, device, precision)


def find_vlm(name: str) -> str:
    """Where the VLM `name` comes from: `open_clip:...`, a Hugging Face name or a folder.

    Raises:
        UserError: no such name or folder; nothing is loaded to find that out.
    """
    if name == "demo" and not DEMO.is_dir():
        raise UserError(
            f"the demo VLM is missing: it should be in {DEMO}; restore it from the repository "
            "or train it with scripts/train_demo_vlm.py"
        )
    source = {"demo": str(DEMO), **ALIASES, **HUB}.get(name, name)
    if source.startswith("open_clip:") or name in HUB or Path(source).is_dir():
        return source
    raise UserError(
        f"unknown VLM {name!r}; {nearest(name, ['demo', *ALIASES, *HUB])}; "
        "or write open_clip:<model>/<tag or file>, or a folder that exists"
    )


class Parts(NamedTuple):
    """What differs between libraries."""

    model: nn.Module
    dim: int
    preprocess: "Preprocess"
    tokenize: Callable[[list[str]], Any]  # -> something with .to(device)
    image_features: Callable[[Tensor], Tensor]
    text_features: Callable[[Any], Tensor]
    recipe: dict[str, Any]  # everything but the weights that decides an embedding, as plain data


class LoadedVLM:
    """The `VLM` contract over `Parts`; see `VLM`. `model` is there for those who fine-tune it."""

    def __init__(self, name: str, parts: Parts, device: torch.device, precision: str) -> None:
        self.name, self.device, self.precision = name, device, precision
        self.dim, self.preprocess, self._parts = parts.dim, parts.preprocess, parts
        self.model = parts.model.eval().to(device)
        self._fingerprint: tuple[int, str] | None = None

    def encode_images(self, batch: Tensor) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self.image_features(batch).float()

    def encode_texts(self, texts: list[str]) -> Tensor:
        with torch.inference_mode(), self._autocast():
            return self.text_features(texts).float()

    def image_features(self, batch: Tensor) -> Tensor:
        """`encode_images` with gradients, for training; precision is the caller's autocast."""
        return self._parts.image_features(batch.to(self.device))

    def text_features(self, texts: list[str]) -> Tensor:
        """`encode_texts` with gradients, likewise."""
        return self._parts.text_features(self._parts.tokenize(texts).to(self.device))

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything but the weights that decides an embedding, as plain data."""
        return self._parts.recipe

    @property
    def fingerprint(self) -> str:
        state = self.model.state_dict()
        # Torch counts the changes to each tensor (but not those through .data), so a model that an
        # optimizer changes does not keep its old hash.
        version = sum(tensor._version for tensor in state.values())
        if self._fingerprint is None or self._fingerprint[0] != version:
            recipe = {**self.recipe, "precision": self.precision}
            hasher = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
            for name, tensor in sorted(state.items()):
                hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                hasher.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
            self._fingerprint = version, hasher.hexdigest()[:16]
        return self._fingerprint[1]

    def _autocast(self):
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype) if dtype else nullcontext()


# --- images ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preprocess:
    """A PIL image of any mode -> RGB -> a library's `transform` -> (3, H, W) float32."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        return self.transform(to_rgb(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB. Transparency is dropped, as CLIP's own preprocessing does."""
    if image.mode.startswith("I"):  # 16 bits a pixel; PIL would clip them at 255 instead of scaling
        eight_bits = np.clip(np.asarray(image) / 257, 0, 255).round().astype(np.uint8)
        image = Image.fromarray(eight_bits)
    return image.convert("RGB")


# --- open_clip ------------------------------------------------------------------------------------


def _open_clip(spec: str) -> Parts:
    """`<model>/<tag or file>`."""
    import open_clip

    model, _, weights = spec.partition("/")
    if model not in open_clip.list_models():
        raise UserError(
            f"unknown open_clip model {model!r}; {nearest(model, open_clip.list_models())}"
        )
    if open_clip.is_pretrained_cfg(model, weights):
        tag = open_clip.get_pretrained_cfg(model, weights)
        _check_quick_gelu(model, weights)
        with explained(f"open_clip:{spec}", remote=True):
            checkpoint = Path(open_clip.download_pretrained(tag))
        return _open_clip_parts(model, checkpoint, _preprocessing(tag))
    checkpoint = Path(weights)
    if not checkpoint.is_file():
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise UserError(
            f"open_clip has no weights {weights!r} for {model}, nor is this a file "
            f"(absolute path: open_clip:{model}//path); {nearest(weights, tags)}"
        )
    # The file does not say how its images were prepared; the known weights of the model might.
    known = [
        _preprocessing(open_clip.get_pretrained_cfg(model, tag))
        for tag in open_clip.list_pretrained_tags_by_model(model)
    ]
    if not known or any(other != known[0] for other in known):
        raise UserError(
            f"{checkpoint} does not say how {model}'s images are to be prepared, and its known "
            "weights do not agree; use a folder with open_clip_config.json and its preprocess_cfg"
        )
    # Nor does it say which activation it was trained with.
    activations = {
        open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
        for tag in open_clip.list_pretrained_tags_by_model(model)
    }
    if len(activations) > 1 and f"{model}-quickgelu" in open_clip.list_models():
        raise UserError(
            f"{checkpoint} does not say whether it was trained with QuickGELU; if it was (OpenAI, "
            f"MetaCLIP, DFN) use open_clip:{model}-quickgelu/<file>, else a folder with "
            "open_clip_config.json"
        )
    return _open_clip_parts(model, checkpoint, known[0])


def _open_clip_folder(folder: Path) -> Parts:
    """A folder as open_clip saves it: open_clip_config.json and the weights."""
    file = folder / "open_clip_config.json"
    with explained(str(file), remote=False):
        config = json.loads(file.read_text(encoding="utf-8"))
        model_cfg, preprocess_cfg = (
            config.get("model_cfg") or {},
            config.get("preprocess_cfg") or {},
        )
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= model_cfg.keys():
        raise UserError(f"{file} does not describe a model: no model_cfg, or one with gaps")
    if not {"mean", "std"} <= preprocess_cfg.keys():
        raise UserError(f"{file} does not say how images are prepared: no preprocess_cfg mean, std")
    # open_clip would silently resize to the model's size, whatever the preprocessing says.
    takes = model_cfg["vision_cfg"].get("image_size", 224)
    prepared = preprocess_cfg.get("size", takes)
    if np.any(np.not_equal(prepared, takes)):
        raise UserError(f"{file}: images are prepared at {prepared} but the model takes {takes}")
    for name in WEIGHTS:
        if (folder / name).is_file():
            return _open_clip_parts(f"local-dir:{folder}", folder / name)
    raise UserError(f"{folder} has no weights: {WEIGHTS[0]} is missing")


def _open_clip_parts(model_name: str, checkpoint: Path, preprocessing: dict | None = None) -> Parts:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    stored = stored_shapes(checkpoint)
    config = open_clip.get_model_config(model_name)
    # No code from a folder: its tokenizer_config.json must not bring any.
    safe = {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}
    local = model_name.startswith("local-dir:")  # where open_clip finds the same file by itself
    with explained(model_name, remote=not local):
        tokenize = open_clip.get_tokenizer(model_name, **safe)
        model = open_clip.create_model(
            model_name,
            pretrained=None if local else str(checkpoint),
            force_preprocess_cfg=preprocessing,
        )
    for key, tensor in model.state_dict().items():
        # open_clip interpolates position embeddings of another size; that is another model.
        if tensor.ndim > 1 and key in stored and stored[key] != tuple(tensor.shape):
            raise UserError(
                f"{checkpoint} does not fit {model_name}: {key} is {stored[key]} in the file, "
                f"{tuple(tensor.shape)} in the model"
            )
    vocabulary = getattr(tokenize, "vocab_size", 0)  # of CLIP's own tokenizer
    if vocabulary > config["text_cfg"].get("vocab_size", 49408):
        raise UserError(f"{model_name}: its tokenizer has {vocabulary} tokens, the model fewer")
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    return Parts(
        model=model,
        dim=config["embed_dim"],
        preprocess=Preprocess(image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)),
        tokenize=tokenize,
        image_features=model.encode_image,
        text_features=model.encode_text,
        recipe={
            "model": config,
            "preprocess": preprocessing,
            "tokenizer": _describe(getattr(tokenize, "tokenizer", tokenize), tokenize),
        },
    )


def _preprocessing(tag: dict[str, Any]) -> dict[str, Any]:
    """What open_clip says about the preparation of images for the weights of one tag."""
    return {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode")}


def _check_quick_gelu(model: str, tag: str) -> None:
    """An error where open_clip only warns and then computes with the wrong activation."""
    import open_clip

    trained_with = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
    if trained_with == open_clip.get_model_config(model).get("quick_gelu", False):
        return
    right = f"{model}-quickgelu" if trained_with else model.removesuffix("-quickgelu")
    # roberta-ViT-B-32 has no such twin: there open_clip's note on its only weights is incomplete.
    if open_clip.is_pretrained_cfg(right, tag):
        raise UserError(
            f"the weights {tag!r} were trained {'with' if trained_with else 'without'} QuickGELU; "
            f"use open_clip:{right}/{tag}"
        )


# --- transformers ---------------------------------------------------------------------------------


def _folder(folder: Path) -> Parts:
    """A local folder of either library."""
    if (folder / "open_clip_config.json").is_file():
        return _open_clip_folder(folder)
    with explained(f"{folder}: it has no open_clip_config.json, and as to config.json", False):
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if model_type not in {"align", "blip-2"}:
        raise UserError(
            f"{folder} holds a {model_type!r} model; transformers folders can be 'align' or "
            "'blip-2', all others come through open_clip"
        )
    # transformers 5 writes either file.
    files = [folder / "preprocessor_config.json", folder / "processor_config.json"]
    if not any(file.is_file() for file in files):
        raise UserError(f"{files[0]} is missing: nothing says how images are prepared")
    return _align(str(folder)) if model_type == "align" else _blip2(str(folder))


def _align(source: str) -> Parts:
    """ALIGN. It is convolutional, so no image size is wrong: its published configuration says 600
    and its published preprocessing crops to 289."""
    from transformers import AlignModel

    # 64 tokens, always: so were its texts in training.
    model, common = _from_transformers(AlignModel, source, padding="max_length", max_length=64)
    return Parts(
        model=model,
        dim=model.config.projection_dim,
        image_features=lambda batch: model.get_image_features(batch).pooler_output,
        text_features=lambda tokens: model.get_text_features(**tokens).pooler_output,
        **common,
    )


def _blip2(source: str) -> Parts:
    """BLIP-2's image-text contrast: 32 query vectors an image, the first token's vector of a text.

    One `Blip2ForImageTextRetrieval` and not transformers' two `...WithProjection` classes: those
    would hold the shared Q-Former twice and give vectors that are normalised already.
    """
    from transformers import Blip2ForImageTextRetrieval

    model, common = _from_transformers(
        Blip2ForImageTextRetrieval, source, padding=True, max_length=512
    )
    prepared = common["preprocess"](Image.new("RGB", (64, 48))).shape[1:]
    takes = model.config.vision_config.image_size
    if tuple(prepared) != (takes, takes):
        raise UserError(
            f"{source}: images are prepared at {[*prepared]} but the model takes {takes}"
        )

    def image_features(batch: Tensor) -> Tensor:
        patches = model.vision_model(batch).last_hidden_state
        queries = model.query_tokens.expand(len(batch), -1, -1)
        queries = model.qformer(queries, encoder_hidden_states=patches).last_hidden_state
        return model.vision_projection(queries)

    def text_features(tokens: dict[str, Tensor]) -> Tensor:
        words = model.embeddings(tokens["input_ids"])
        states = model.qformer(words, query_length=0, attention_mask=tokens["attention_mask"])
        return model.text_projection(states.last_hidden_state[:, 0])

    return Parts(
        model=model,
        dim=model.config.image_text_hidden_size,
        image_features=image_features,
        text_features=text_features,
        **common,
    )


def _from_transformers(model_class: Any, source: str, **padding: Any) -> tuple[Any, dict[str, Any]]:
    """From a folder or a Hugging Face name: the model in float32, and the `Parts` that do not
    depend on its architecture."""
    from transformers import AutoImageProcessor, AutoTokenizer

    local = Path(source).is_dir()
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        for file in Path(source).glob(pattern):
            stored_shapes(file)
    with explained(source, remote=not local):
        # Pillow's resizing, as these models were published with; torchvision's differs a little.
        processor = AutoImageProcessor.from_pretrained(
            source, backend="pil", trust_remote_code=False
        )
        # Padding on the right: BLIP-2 takes the first token.
        tokenizer = AutoTokenizer.from_pretrained(
            source, padding_side="right", trust_remote_code=False
        )
        model, report = model_class.from_pretrained(
            source,
            dtype=torch.float32,
            weights_only=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
        )
    # transformers only warns, and leaves what is missing at random values.
    wrong = {"missing": report["missing_keys"], "of another shape": report["mismatched_keys"]}
    if local:
        wrong["unexpected"] = report["unexpected_keys"]
    if any(wrong.values()):
        few = {what: sorted(map(str, keys))[:3] for what, keys in wrong.items() if keys}
        raise UserError(f"the weights in {source} do not fit {model_class.__name__}: {few}")
    config = model.config.to_dict()
    for key in ("transformers_version", "_name_or_path"):  # do not change an embedding
        config.pop(key, None)
    tokenize = partial(tokenizer, truncation=True, return_tensors="pt", **padding)
    return model, {
        "preprocess": Preprocess(partial(_pixels, processor)),
        "tokenize": tokenize,
        "recipe": {
            "model": config,
            "preprocess": processor.to_dict(),
            "tokenizer": _describe(tokenizer, tokenize),
        },
    }


def _pixels(processor: Any, image: Image.Image) -> Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


def _describe(tokenizer: Any, tokenize: Callable[[list[str]], Any]) -> dict[str, Any]:
    """A tokenizer's vocabulary, and what it makes of a text with all it has to deal with."""
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else tokenizer.encoder
    tokens = tokenize(["A photo of  3 café's, unBELIEVABLY small! " * 20])
    ids = tokens if isinstance(tokens, Tensor) else tokens["input_ids"]
    return {"vocabulary": vocabulary, "probe": ids.tolist()}
