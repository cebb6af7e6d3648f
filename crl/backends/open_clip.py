"""VLMs of open_clip: load them by model and tag, from a checkpoint file or a folder; save them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crl.backends.hub import explained
from crl.backends.loaded import LoadedVLM, Parts, Preprocess, describe_tokenizer
from crl.backends.weights import save_tensors, stored_shapes
from crl.run.errors import UserError, nearest
from crl.run.files import write_text

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
           "open_clip_pytorch_model.bin")  # in open_clip's own order of preference  # fmt: skip


def load_tag_or_file(spec: str) -> Parts:
    """`<model>/<tag or file>`."""
    import open_clip

    (model, _, weights), models = spec.partition("/"), open_clip.list_models()
    if model not in models:
        raise UserError(f"unknown open_clip model {model!r}; {nearest(model, models)}")
    if open_clip.is_pretrained_cfg(model, weights):
        tag = open_clip.get_pretrained_cfg(model, weights)
        _check_quick_gelu(model, weights)
        with explained(f"open_clip:{spec}", remote=True):
            checkpoint = Path(open_clip.download_pretrained(tag))
        return _build(model, checkpoint, _preprocessing(tag))
    checkpoint, tags = Path(weights), open_clip.list_pretrained_tags_by_model(model)
    if not checkpoint.is_file():
        advice = f"(absolute path: open_clip:{model}//path); {nearest(weights, tags)}"
        raise UserError(f"no file and no weights {weights!r} for {model} {advice}")
    # A file says neither how images are prepared nor its activation: as all known weights agree.
    settings = [open_clip.get_pretrained_cfg(model, tag) for tag in tags]
    preprocessings = [_preprocessing(tag) for tag in settings]
    if not preprocessings or any(other != preprocessings[0] for other in preprocessings):
        advice = f"and {model}'s known weights do not agree; use a folder with {CONFIG}"
        raise UserError(f"{checkpoint} does not say how images are to be prepared, {advice}")
    activations = {tag.get("quick_gelu", False) for tag in settings}
    if len(activations) > 1 and f"{model}-quickgelu" in models:
        advice = f"use open_clip:{model}-quickgelu/<file> if so, else a folder with {CONFIG}"
        kinds = "with QuickGELU (OpenAI, MetaCLIP, DFN) or without"
        raise UserError(f"{checkpoint} does not say if it was trained {kinds}; {advice}")
    return _build(model, checkpoint, preprocessings[0])


def load_folder(folder: Path) -> Parts:
    """A folder in open_clip's format: open_clip_config.json and the weights."""
    file = folder / CONFIG
    with explained(str(file), remote=False):
        config = json.loads(file.read_text(encoding="utf-8"))
        model, preprocessing = (config.get(key) or {} for key in ("model_cfg", "preprocess_cfg"))
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys():
        raise UserError(f"{file} does not describe a model: no model_cfg, or one with gaps")
    if not {"mean", "std"} <= preprocessing.keys():
        raise UserError(f"{file} does not say how images are prepared: no preprocess_cfg mean, std")
    # open_clip would silently resize to the model's size and ignore the size in preprocess_cfg.
    takes = model["vision_cfg"].get("image_size", 224)
    prepared = preprocessing.get("size", takes)
    if np.any(np.not_equal(prepared, takes)):
        raise UserError(f"{file}: images are prepared at {prepared} but the model takes {takes}")
    for name in WEIGHTS:
        if (folder / name).is_file():
            return _build(f"local-dir:{folder}", folder / name)
    raise UserError(f"{folder} has no weights: {WEIGHTS[0]} is missing")


def save_vlm(folder: Path, vlm: LoadedVLM) -> None:
    """Write an open_clip VLM to a folder that `load_folder` reads, with configuration, tokenizer
    and weights."""
    recipe, tokenize = vlm.parts.recipe, vlm.parts.tokenize
    config = {"model_cfg": recipe["model"], "preprocess_cfg": recipe["preprocess"]}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    if hasattr(tokenize, "save_pretrained"):  # CLIP's own tokenizer comes with open_clip
        tokenize.save_pretrained(folder)
    save_tensors(folder / WEIGHTS[0], vlm.model)


def _build(model_name: str, checkpoint: Path, preprocessing: dict | None = None) -> Parts:
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    stored = stored_shapes(checkpoint)
    config = open_clip.get_model_config(model_name)
    # Run no code from a folder: its tokenizer_config.json must not load any.
    safe = {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}
    local = model_name.startswith("local-dir:")  # then open_clip finds the same file by itself
    with explained(model_name, remote=not local):
        tokenize = open_clip.get_tokenizer(model_name, **safe)
        pretrained = None if local else str(checkpoint)
        model = open_clip.create_model(model_name, pretrained, force_preprocess_cfg=preprocessing)
    # open_clip would interpolate position embeddings of another size; that is another model.
    for key, tensor in model.state_dict().items():
        if tensor.ndim > 1 and key in stored and stored[key] != tuple(tensor.shape):
            shapes = f"{stored[key]} in the file, {tuple(tensor.shape)} in the model"
            raise UserError(f"{checkpoint} does not fit {model_name}: {key} is {shapes}")
    vocabulary = getattr(tokenize, "vocab_size", 0)  # of CLIP's own tokenizer
    if vocabulary > config["text_cfg"].get("vocab_size", 49408):
        raise UserError(f"{model_name}: its tokenizer has {vocabulary} tokens, the model fewer")
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    images = PreprocessCfg(**preprocessing)
    _, height, width = images.input_size
    side = height if images.resize_mode == "shortest" and height == width else None
    resample = getattr(Image.Resampling, images.interpolation.upper(), Image.Resampling.BICUBIC)
    transform = image_transform_v2(images, is_train=False)
    tokenizer = describe_tokenizer(getattr(tokenize, "tokenizer", tokenize), tokenize)
    return Parts(
        model=model,
        dim=config["embed_dim"],
        preprocess=Preprocess(transform, side, resample, most=max(height, width)),
        tokenize=tokenize,
        context=tokenize.context_length,
        image_features=model.encode_image,
        text_features=model.encode_text,
        recipe={"model": config, "preprocess": preprocessing, "tokenizer": tokenizer},
        files=sorted(checkpoint.parent.iterdir()) if local else [checkpoint],
    )


def _preprocessing(tag: dict[str, Any]) -> dict[str, Any]:
    return {key: tag[key] for key in ("mean", "std", "interpolation", "resize_mode")}


def _check_quick_gelu(model: str, tag: str) -> None:
    """Raise an error where open_clip only warns and then computes with the wrong activation."""
    import open_clip

    trained_with = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
    if trained_with == open_clip.get_model_config(model).get("quick_gelu", False):
        return
    right = f"{model}-quickgelu" if trained_with else model.removesuffix("-quickgelu")
    # roberta-ViT-B-32 has no such variant: open_clip's entry for its only weights is incomplete.
    if open_clip.is_pretrained_cfg(right, tag):
        word = "with" if trained_with else "without"
        advice = f"use open_clip:{right}/{tag}"
        raise UserError(f"the weights {tag!r} were trained {word} QuickGELU; {advice}")
