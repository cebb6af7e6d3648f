"""VLMs of transformers, from the Hugging Face Hub or a folder."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from crl.backends.hub import explained
from crl.backends.loaded import Parts, Preprocess, describe_tokenizer
from crl.backends.weights import stored_shapes
from crl.run.errors import UserError

# model_type -> transformers' class with get_image_features and get_text_features, and how texts are
# padded: to the full length where the training did so
TWO_TOWERS: dict[str, tuple[str, bool | str]] = {
    "align": ("AlignModel", "max_length"),
    "altclip": ("AltCLIPModel", True),
    "chinese_clip": ("ChineseCLIPModel", True),
    "clip": ("CLIPModel", True),
    "metaclip_2": ("MetaClip2Model", True),
    "siglip": ("SiglipModel", "max_length"),
    "siglip2": ("Siglip2Model", "max_length"),
}


def load_folder(folder: Path) -> Parts:
    with explained(f"{folder}: it has no open_clip_config.json, and as to config.json", False):
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind not in (*TWO_TOWERS, "blip-2"):
        advice = "for another, write a VLM of your own, vlm=<module>:<class>, see crl/README.md"
        known = ", ".join([*TWO_TOWERS, "blip-2"])
        raise UserError(f"{folder} holds a {kind!r} model; known are {known}; {advice}")
    return load(kind, str(folder))


def load(kind: str, source: str) -> Parts:
    return _load_blip2(source) if kind == "blip-2" else _load_two_towers(kind, source)


def _load_two_towers(kind: str, source: str) -> Parts:
    import transformers

    name, padding = TWO_TOWERS[kind]
    context = 64 if kind == "align" else None  # as in its training
    model, common = _load(getattr(transformers, name), source, padding, context)

    def image_features(batch: Tensor) -> Tensor:
        if kind == "siglip2":  # see `_pixels`
            batch, mask, shapes = batch[..., :-3], batch[..., -3].long(), batch[:, 0, -2:].long()
            return model.get_image_features(batch, mask, shapes).pooler_output
        return model.get_image_features(batch).pooler_output

    def text_features(tokens: dict[str, Tensor]) -> Tensor:
        return model.get_text_features(**tokens).pooler_output

    if kind != "align":  # convolutional: its configuration says 600 pixels, its preprocessing 289
        _check_size(source, model, common)
    with torch.no_grad():
        dim = text_features(common["tokenize"](["a"], common["context"])).shape[1]
    return Parts(model, dim, image_features=image_features, text_features=text_features, **common)


def _load_blip2(source: str) -> Parts:
    """BLIP-2's image-text contrast: 32 query vectors per image; the first token's vector per text.
    transformers' two `...WithProjection` classes would hold the shared Q-Former twice."""
    from transformers import Blip2ForImageTextRetrieval

    model, common = _load(Blip2ForImageTextRetrieval, source, padding=True, context=512)
    _check_size(source, model, common)

    def image_features(batch: Tensor) -> Tensor:
        patches = model.vision_model(batch).last_hidden_state  # (B, patches, width)
        queries = model.query_tokens.expand(len(batch), -1, -1)  # (B, Q, width)
        queries = model.qformer(queries, encoder_hidden_states=patches).last_hidden_state
        return model.vision_projection(queries)  # (B, Q, D)

    def text_features(tokens: dict[str, Tensor]) -> Tensor:
        words = model.embeddings(tokens["input_ids"])  # (K, tokens, width)
        states = model.qformer(words, query_length=0, attention_mask=tokens["attention_mask"])
        return model.text_projection(states.last_hidden_state[:, 0])  # (K, D)

    dim = model.config.image_text_hidden_size
    return Parts(model, dim, image_features=image_features, text_features=text_features, **common)


def _check_size(source: str, model: Any, common: dict[str, Any]) -> None:
    """A UserError if images are prepared at another size than the model takes."""
    takes = getattr(model.config.vision_config, "image_size", None)  # None: any
    prepared = [*common["preprocess"](Image.new("RGB", (64, 48))).shape[1:]]
    if takes and prepared != [takes, takes]:
        raise UserError(f"{source}: images are prepared at {prepared} but the model takes {takes}")


def _pixels(processor: Any, image: Image.Image) -> Tensor:
    """(3, H, W); of SigLIP 2, whose patches keep the aspect ratio, (patches, pixels of one + 3):
    beside each patch whether it counts, and the height and width in patches."""
    prepared = processor(image, return_tensors="pt")
    pixels = prepared["pixel_values"][0]
    if "spatial_shapes" in prepared:
        mask, shape = prepared["pixel_attention_mask"][0], prepared["spatial_shapes"][0]
        pixels = torch.cat([pixels, mask[:, None], shape.expand(len(pixels), 2)], dim=1)
    return pixels


def load_weights(
    model_class: Any, source: str, dtype: torch.dtype = torch.float32, unused: str = "\0"
) -> Any:
    """The model of a folder or a name on the hub. A UserError for damaged weights, and for those
    that do not fit; `unused`: how the names of weights begin that may be missing."""
    folder = Path(source)
    local = folder.is_dir()
    for file in [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]:
        stored_shapes(file)
    with explained(source, remote=not local):
        model, report = model_class.from_pretrained(  # other shapes are reported below, by name
            source, dtype=dtype, weights_only=True, ignore_mismatched_sizes=True,
            output_loading_info=True,
        )  # fmt: skip
    # transformers only warns, and leaves missing weights at random values.
    missing = [key for key in report["missing_keys"] if not key.startswith(unused)]
    wrong = {"missing": missing, "of another shape": report["mismatched_keys"]}
    if local:
        wrong["unexpected"] = report["unexpected_keys"]
    if any(wrong.values()):
        few = {what: sorted(map(str, keys))[:3] for what, keys in wrong.items() if keys}
        raise UserError(f"the weights in {source} do not fit {model_class.__name__}: {few}")
    return model


def _load(
    model_class: Any, source: str, padding: bool | str, context: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """The model in float32, from a folder or by its name on the hub, and the `Parts` that do not
    depend on its architecture. `context`, in tokens; None: the most that it takes."""
    from huggingface_hub import snapshot_download
    from transformers import AutoImageProcessor, AutoTokenizer

    folder = Path(source)
    local = folder.is_dir()
    safe = {"trust_remote_code": False}
    with explained(source, remote=not local):
        # Pillow's resizing, with which these models were published; torchvision's differs a little.
        processor = AutoImageProcessor.from_pretrained(source, backend="pil", **safe)
        # Padding on the right: BLIP-2 takes the first token.
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="right", **safe)
    model = load_weights(model_class, source)
    idle = "transformers_version", "_name_or_path"  # do not change an embedding
    config = {key: value for key, value in model.config.to_dict().items() if key not in idle}
    if context is None:
        unused = 2 if model.config.model_type == "altclip" else 0  # its positions begin at 2
        positions = model.config.text_config.max_position_embeddings - unused
        context = min(positions, tokenizer.model_max_length)

    def tokenize(texts: list[str], context: int = context) -> Any:
        how = {"padding": padding, "truncation": True, "max_length": context}
        return tokenizer(texts, return_tensors="pt", **how)

    words = describe_tokenizer(tokenizer, tokenize)
    if not local:
        folder = Path(snapshot_download(source, local_files_only=True))
    return model, dict(
        preprocess=_preprocess(processor),
        tokenize=tokenize,
        context=context,
        recipe={"model": config, "preprocess": processor.to_dict(), "tokenizer": words},
        files=[file for file in sorted(folder.iterdir()) if file.is_file()],
    )


def _preprocess(processor: Any) -> Preprocess:
    size = dict(getattr(processor, "size", None) or {})  # SigLIP 2's counts patches instead
    cropped = getattr(processor, "do_center_crop", False) and len(size) == 1
    side = size["shortest_edge"] if cropped else None
    if patches := getattr(processor, "max_num_patches", 0):
        most = math.isqrt(patches) * processor.patch_size  # of a square; the others are flatter
    else:
        most = max(size.values()) if processor.do_resize else 0
    resample = Image.Resampling(processor.resample)
    return Preprocess(partial(_pixels, processor), side, resample, most)
