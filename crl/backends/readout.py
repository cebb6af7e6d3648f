"""Multimodal language models of transformers: the last hidden state of the last token of a prompt.

DIOR reads any of them after "Express this image in one word in terms of ...". Embedding models of
the same architecture have been trained to be read so after an instruction.
"""

import hashlib
import inspect
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from crl.backends.hub import explained
from crl.backends.loaded import FINGERPRINTS
from crl.backends.precision import PRECISIONS
from crl.backends.torchvision_fix import import_torchvision
from crl.backends.transformers import load_weights
from crl.run.distributed import available_device
from crl.run.errors import UserError
from crl.run.results import digest
from crl.run.stamps import read_record, stamps, write_record

# Kinds of models whose keys and values of a picture serve all criteria; the tests show that vectors
# stay the same. Others read a picture again for each criterion.
SHARE = ("qwen2_vl", "qwen3_vl", "llava", "idefics3")
FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]  # of a repository on the hub


class Template(NamedTuple):
    """What a model is told, in its own chat template; {criterion} is in one of the first two."""

    user: str  # after the picture
    system: str = ""  # before it
    end: str = ""  # after the answer's begin


TEMPLATES = {
    "readout": Template('Express this image in one word in terms of {criterion}: "'),
    # The forms are those of the published code; the words of the instruction are ours.
    "qwen3-vl-embedding": Template("", "Represent the image by its {criterion}."),
    "gme": Template("", "Find images of the same {criterion}.", "<|endoftext|>"),
}


class Readout:
    """A `crl.backends.instructed.Instructed`. Weights are loaded when a picture is encoded."""

    def __init__(
        self, name: str, kind: str, source: str, device: str | torch.device | None, precision: str
    ) -> None:
        self.name, self.precision, self.template = name, precision, TEMPLATES[kind]
        self.device = available_device(device)
        self.folder, local = Path(source), Path(source).is_dir()
        import_torchvision()
        with explained(source, remote=not local):
            import transformers
            from huggingface_hub import snapshot_download

            if not local:
                self.folder = Path(snapshot_download(source, allow_patterns=FILES))
            safe = {"trust_remote_code": False}
            self.processor: Any = transformers.AutoProcessor.from_pretrained(self.folder, **safe)
            config = transformers.AutoConfig.from_pretrained(self.folder, **safe)
            self.dim = config.get_text_config().hidden_size
        if not getattr(self.processor, "chat_template", None):
            raise UserError(f"{source} has no chat template; it must be a model that chats")
        self.fingerprint = digest(_files_digest(self.folder), precision, transformers.__version__)
        self.shares = config.model_type in SHARE and "{criterion}" not in self.template.system

    def prompt(self, criterion: str) -> str:
        told = [self.template.system, self.template.user]
        system, user = ([{"type": "text", "text": t.replace("{criterion}", criterion)}] * bool(t)
                        for t in told)  # fmt: skip
        messages = [{"role": "system", "content": system}] * bool(system)
        messages.append({"role": "user", "content": [{"type": "image"}, *user]})
        how: Any = {"add_generation_prompt": True, "tokenize": False}
        return self.processor.apply_chat_template(messages, **how) + self.template.end

    @cached_property
    def model(self) -> Any:
        """Without the head that turns hidden states into words."""
        from transformers import AutoModelForImageTextToText as Model

        with torch.inference_mode(False):
            model = load_weights(Model, str(self.folder), PRECISIONS[self.precision], "lm_head")
            return model.base_model.eval().to(self.device)

    @torch.inference_mode()
    def encode(self, images: list[Image.Image], criteria: Sequence[str]) -> Tensor:
        prompts = [self.prompt(criterion) for criterion in criteria]
        if len(prompts) > 1 and self.shares:
            rows = torch.stack([self._shared(image, prompts) for image in images])
        else:
            rows = torch.stack([self._states(images, [p] * len(images)) for p in prompts], dim=1)
        return rows.float()

    def _states(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """The state of the last token of B prompts, each with its picture: (B, D)."""
        inputs = self._inputs(images, prompts)
        hidden = self.model(**inputs, use_cache=False).last_hidden_state  # (B, tokens, D)
        return _last(hidden, inputs["attention_mask"])

    def _shared(self, image: Image.Image, prompts: list[str]) -> Tensor:
        """The same for C prompts with one picture, which is read once: (C, D)."""
        from transformers import DynamicCache

        inputs = self._inputs([image] * len(prompts), prompts)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]  # (C, tokens)
        begin = int((ids == ids[:1]).all(0).int().cumprod(0).sum())  # tokens that all share
        begin = min(begin, int(mask.sum(1).min()) - 1)
        first = {}
        for name, tensor in inputs.items():
            is_of_tokens = tensor.shape == ids.shape and not tensor.is_floating_point()
            first[name] = tensor[:1, :begin] if is_of_tokens else tensor[: len(tensor) // len(ids)]
        accepted = inspect.signature(self.model.forward).parameters
        cache = {"cache" if "cache" in accepted else "past_key_values": DynamicCache()}
        self.model(**first, **cache, use_cache=True)
        next(iter(cache.values())).batch_repeat_interleave(len(ids))
        # Without a mask: all padding is on the right. Qwen's positions need it so.
        rest = self.model(input_ids=ids[:, begin:], **cache, use_cache=True)
        return _last(rest.last_hidden_state, mask[:, begin:])

    def _inputs(self, images: list[Image.Image], prompts: list[str]) -> dict[str, Tensor]:
        """What the model takes. Padding on the right is not seen by the tokens before it."""
        begins = self.processor.tokenizer.bos_token or "\0"
        inputs = self.processor(
            images=[[image] for image in images], text=prompts, return_tensors="pt", padding=True,
            padding_side="right", add_special_tokens=not prompts[0].startswith(begins),
        ).to(self.device)  # fmt: skip
        dtype = PRECISIONS[self.precision]
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    """Of the states (B, tokens, D) those of the last tokens that count, (B, D)."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, mask.sum(1) - 1]


def _files_digest(folder: Path) -> str:
    """Of the contents of a model's files; remembered, since they take many seconds to read."""
    record = FINGERPRINTS / f"{digest(str(folder.resolve()))}.files.json"
    files = sorted(file for file in folder.iterdir() if file.is_file())
    summary = read_record(record)
    if summary.get("files") != stamps(files):
        hasher = hashlib.sha256()
        for file in files:
            hasher.update(file.name.encode() + b"\0")
            with file.open("rb") as stream:
                while part := stream.read(2**24):
                    hasher.update(part)
        summary = {"files": stamps(files), "digest": hasher.hexdigest()[:16]}
        write_record(record, summary)
    return summary["digest"]
