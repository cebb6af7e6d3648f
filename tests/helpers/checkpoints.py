"""Tiny random checkpoints in the real file formats of open_clip and transformers."""

import json

import torch
from PIL import Image
from safetensors.torch import save_file

from crl.backends.torchvision_fix import import_torchvision
from similarity_retrieval.rivals import METHODS

import_torchvision()
import open_clip  # noqa: E402
import transformers as hf  # noqa: E402

WORDS = ["the", "of", "with", "color", "red", "metal", "cat", "sphere", "photo", "objects"]
CLIP = {  # small, and in all else an open_clip configuration
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
    },
}  # fmt: skip
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def randomised(model):
    """Every weight well away from its initial value: no term of the forward pass is idle."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor + 0.1 * torch.randn_like(tensor).abs())
            if tensor.ndim > 1:
                tensor.normal_(0, 1.5 / tensor[0].numel() ** 0.5)
    return model.eval()


def clip_model():
    torch.manual_seed(0)
    return randomised(open_clip.CLIP(**CLIP))


def save_clip(folder):
    folder.mkdir(exist_ok=True, parents=True)
    preprocess = {"size": 32, "mean": MEAN, "std": STD, "interpolation": "bicubic"}
    config = {"model_cfg": CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(clip_model().state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_tokenizer(folder):
    folder.mkdir(exist_ok=True, parents=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz," for prefix in ("", "##")]
    vocabulary = {token: i for i, token in enumerate([*special, *letters, *WORDS])}
    hf.BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return len(vocabulary)


def save_align(folder):
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**size, "intermediate_size": 64, "vocab_size": save_tokenizer(folder)}
    vision = {
        "image_size": 600,  # as the published configuration says, beside a crop of another size
        "kernel_sizes": [3, 3, 5], "in_channels": [32, 16, 24], "out_channels": [16, 24, 30],
        "strides": [1, 1, 2], "num_block_repeats": [1, 1, 2], "expand_ratios": [1, 6, 6],
        "hidden_dim": 64, "depth_coefficient": 1.0,
    }  # fmt: skip
    config = hf.AlignConfig(text_config=text, vision_config=vision, projection_dim=64)
    randomised(hf.AlignModel(config)).save_pretrained(folder)
    hf.EfficientNetImageProcessor(  # the published settings, smaller
        size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32},
        do_center_crop=True, resample=Image.Resampling.BILINEAR, rescale_factor=1 / 127.5,
        rescale_offset=True, do_normalize=False, include_top=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_blip2(folder, size=32):
    layers = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64
    }  # fmt: skip
    config = hf.Blip2Config(
        vision_config={**layers, "image_size": 32, "patch_size": 16},
        qformer_config={
            **layers, "vocab_size": save_tokenizer(folder), "use_qformer_text_input": True
        },
        text_config=hf.OPTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, vocab_size=9,
            word_embed_proj_dim=16,
        ).to_dict(),
        num_query_tokens=4, image_text_hidden_size=16,
    )  # fmt: skip
    randomised(hf.Blip2ForImageTextRetrieval(config)).save_pretrained(folder)
    hf.BlipImageProcessor(
        size={"height": size, "width": size}, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)
    return folder


# Beside these, two towers of transformers: model_type -> class, configuration, image processor
_LAYERS = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2
}  # fmt: skip
_CLIP_PIXELS = {
    "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "image_mean": MEAN,
    "image_std": STD,
}  # fmt: skip
_SQUARE = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD}
TOWERS = {
    "clip": (hf.CLIPModel, hf.CLIPConfig, hf.CLIPImageProcessor(**_CLIP_PIXELS)),
    "metaclip_2": (hf.MetaClip2Model, hf.MetaClip2Config, hf.CLIPImageProcessor(**_CLIP_PIXELS)),
    "altclip": (hf.AltCLIPModel, hf.AltCLIPConfig, hf.CLIPImageProcessor(**_CLIP_PIXELS)),
    "chinese_clip": (
        hf.ChineseCLIPModel, hf.ChineseCLIPConfig, hf.ChineseCLIPImageProcessor(**_CLIP_PIXELS)
    ),
    "siglip": (hf.SiglipModel, hf.SiglipConfig, hf.SiglipImageProcessor(**_SQUARE)),
    "siglip2": (
        hf.Siglip2Model, hf.Siglip2Config,
        hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16, image_mean=MEAN, image_std=STD),
    ),
}  # fmt: skip


def save_towers(kind, folder):
    model, config, processor = TOWERS[kind]
    torch.manual_seed(0)
    text = {
        **_LAYERS, "vocab_size": save_tokenizer(folder), "max_position_embeddings": 24,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "projection_dim": 16,
        "projection_size": 32, "project_dim": 32,
    }  # fmt: skip
    vision = {**_LAYERS, "image_size": 32, "patch_size": 8}
    if kind == "siglip2":
        vision = {**_LAYERS, "num_patches": 16, "patch_size": 8}
    projection = {} if kind.startswith("siglip") else {"projection_dim": 16}
    settings = config(text_config=text, vision_config=vision, **projection)
    randomised(model(settings)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


SAVE = {"open_clip": save_clip, "align": save_align, "blip2": save_blip2}


def save_rival(method, file, dim=16, width=32):
    """A rival of GeneCIS, in a file of the published form."""
    torch.manual_seed(1)
    kind = METHODS[method]
    network = kind.network(dim, width)
    state, content = network.state_dict(), {"epoch": 3}
    if method == "pic2word":
        state = {f"module.{key}": tensor for key, tensor in state.items()}
        content |= {"name": "x", "state_dict": {"module.visual.proj": torch.ones(2)}}
        content |= {"optimizer": {"state": {}, "param_groups": []}}
    torch.save({**content, kind.entry: state}, file)
    return network.eval()
