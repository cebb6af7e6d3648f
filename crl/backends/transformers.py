"""VLMs of transformers: ALIGN and BLIP-2, from the Hugging Face Hub or a folder."""

import json
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


def load_folder(folder: Path) -> Parts:
    with explained(f"{folder}: it has no open_clip_config.json, and as to config.json", False):
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind not in ("align", "blip-2"):
        raise UserError(f"{folder} holds a {kind!r} model; known are 'align' and 'blip-2'")
    return load_align(str(folder)) if kind == "align" else load_blip2(str(folder))


def load_align(source: str) -> Parts:
    """ALIGN, convolutional: its published configuration says 600 pixels, its preprocessing 289."""
    from transformers import AlignModel

    # Always 64 tokens, as in its training.
    model, common = _load(AlignModel, source, padding="max_length", max_length=64)
    return Parts(
        model, model.config.projection_dim, **common,
        image_features=lambda batch: model.get_image_features(batch).pooler_output,
        text_features=lambda tokens: model.get_text_features(**tokens).pooler_output,
    )  # fmt: skip


def load_blip2(source: str) -> Parts:
    """BLIP-2's image-text contrast: 32 query vectors per image; the first token's vector per text.
    transformers' two `...WithProjection` classes would hold the shared Q-Former twice."""
    from transformers import Blip2ForImageTextRetrieval

    model, common = _load(Blip2ForImageTextRetrieval, source, padding=True, max_length=512)
    prepared = [*common["preprocess"](Image.new("RGB", (64, 48))).shape[1:]]
    takes = model.config.vision_config.image_size
    if prepared != [takes, takes]:
        raise UserError(f"{source}: images are prepared at {prepared} but the model takes {takes}")

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


def _load(model_class: Any, source: str, **padding: Any) -> tuple[Any, dict[str, Any]]:
    """The model in float32, from a folder or by its name on the hub, and the `Parts` that do not
    depend on its architecture."""
    from huggingface_hub import snapshot_download
    from transformers import AutoImageProcessor, AutoTokenizer

    folder = Path(source)
    local = folder.is_dir()
    for file in [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]:
        stored_shapes(file)
    safe = {"trust_remote_code": False}
    with explained(source, remote=not local):
        # Pillow's resizing, with which these models were published; torchvision's differs a little.
        processor = AutoImageProcessor.from_pretrained(source, backend="pil", **safe)
        # Padding on the right: BLIP-2 takes the first token.
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="right", **safe)
        model, report = model_class.from_pretrained(  # other shapes are reported below, by name
            source, dtype=torch.float32, weights_only=True, ignore_mismatched_sizes=True,
            output_loading_info=True,
        )  # fmt: skip
    # transformers only warns, and leaves missing weights at random values.
    wrong = {"missing": report["missing_keys"], "of another shape": report["mismatched_keys"]}
    if local:
        wrong["unexpected"] = report["unexpected_keys"]
    if any(wrong.values()):
        few = {what: sorted(map(str, keys))[:3] for what, keys in wrong.items() if keys}
        raise UserError(f"the weights in {source} do not fit {model_class.__name__}: {few}")
    idle = "transformers_version", "_name_or_path"  # do not change an embedding
    config = {key: value for key, value in model.config.to_dict().items() if key not in idle}
    tokenize = partial(tokenizer, truncation=True, return_tensors="pt", **padding)
    words = describe_tokenizer(tokenizer, tokenize)
    if not local:
        folder = Path(snapshot_download(source, local_files_only=True))
    return model, dict(
        preprocess=Preprocess(lambda x: processor(x, return_tensors="pt")["pixel_values"][0]),
        tokenize=tokenize,
        recipe={"model": config, "preprocess": processor.to_dict(), "tokenizer": words},
        files=[file for file in sorted(folder.iterdir()) if file.is_file()],
    )
