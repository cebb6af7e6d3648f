"""Tiny random multimodal language models in the real file formats of transformers."""

import torch
from checkpoints import MEAN, STD, WORDS, randomised

from crl.backends.torchvision_fix import import_torchvision

import_torchvision()
import transformers as hf  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

QWEN = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>",
        "<|image_pad|>", "<|video_pad|>"]  # fmt: skip
LLAVA = ["<s>", "</s>", "<pad>", "<image>"]
SMOL = [*LLAVA, "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
SMOL += [f"<row_{r}_col_{c}>" for r in range(1, 3) for c in range(1, 3)]
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "image_size": 32,
         "num_attention_heads": 2, "patch_size": 8}  # fmt: skip
# As published: Qwen2-VL's and Qwen3-VL's, LLaVA 1.5's, Idefics3's.
CHATML = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% for part in m['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|>\
<|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
VICUNA = """{% for m in messages %}{{ m['role'].upper() }}: {% for part in m['content'] %}\
{% if part['type'] == 'image' %}<image>
{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}\
{% if add_generation_prompt %}ASSISTANT:{% endif %}"""
SMOLVLM = """<s>{% for m in messages %}{{ m['role'] | capitalize }}:{% for part in m['content'] %}\
{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}\
<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""


def save_multimodal(kind, folder):
    """`qwen2_vl`, `qwen3_vl`, `llava` or `idefics3` (of which the first SmolVLM are)."""
    torch.manual_seed(0)
    config, processor = {"qwen2_vl": _qwen, "qwen3_vl": _qwen, "llava": _llava,
                         "idefics3": _idefics3}[kind](kind)  # fmt: skip
    model = hf.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        randomised(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _tokenizer(special, **tokens):
    """Bytes, and `WORDS`."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    model = models.BPE({token: i for i, token in enumerate(letters)}, [])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(WORDS)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def _qwen(kind):
    tokenizer = _tokenizer(QWEN, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in {
        "image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>",
        "vision_end": "<|vision_end|>"}.items()}  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    text = {**TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope, "head_dim": 8}
    if kind == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 8}
        config = hf.Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
        size = {"shortest_edge": 256, "longest_edge": 4096}
        pixels = hf.Qwen2VLImageProcessor(patch_size=8, size=size, image_mean=MEAN, image_std=STD)
        video = hf.Qwen2VLVideoProcessor(patch_size=8)
        return config, hf.Qwen2VLProcessor(pixels, tokenizer, video, chat_template=CHATML)
    vision = {
        "depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 8, "intermediate_size": 48,
        "out_hidden_size": 32, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64,
    }  # fmt: skip
    config = hf.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    size = {"shortest_edge": 256, "longest_edge": 4096}
    pixels = hf.Qwen2VLImageProcessor(patch_size=8, size=size, image_mean=MEAN, image_std=STD)
    video = hf.Qwen3VLVideoProcessor(patch_size=8)
    return config, hf.Qwen3VLProcessor(pixels, tokenizer, video, chat_template=CHATML)


def _llava(kind):
    tokenizer = _tokenizer(LLAVA, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    token = tokenizer.convert_tokens_to_ids("<image>")
    config = hf.LlavaConfig(
        vision_config={**SMALL, "model_type": "clip_vision_model"}, image_token_index=token,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        image_seq_length=16,
    )  # fmt: skip
    pixels = hf.CLIPImageProcessor(size={"shortest_edge": 32}, image_mean=MEAN, image_std=STD,
                                   crop_size={"height": 32, "width": 32})  # fmt: skip
    options = {"patch_size": 8, "vision_feature_select_strategy": "default"}
    options |= {"num_additional_image_tokens": 1, "chat_template": VICUNA}
    return config, hf.LlavaProcessor(pixels, tokenizer, **options)


def _idefics3(kind):
    tokenizer = _tokenizer(SMOL, bos_token="<s>", eos_token="<end_of_utterance>",
                           pad_token="<pad>")  # fmt: skip
    text = {**TEXT, "model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 2}
    config = hf.Idefics3Config(
        vision_config=SMALL, text_config=text, scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    pixels = hf.Idefics3ImageProcessor(size={"longest_edge": 64}, image_mean=MEAN, image_std=STD,
                                       max_image_size={"longest_edge": 32})  # fmt: skip
    options = {"image_seq_len": 4, "chat_template": SMOLVLM}
    return config, hf.Idefics3Processor(pixels, tokenizer, **options)
