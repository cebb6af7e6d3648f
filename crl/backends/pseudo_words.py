"""Texts in which the embedding of a token is given: pseudo-words.

Pic2Word, SEARLE, LinCIR and others turn an image into the embedding of one token, and write it into
a sentence: `a photo of $ that has a dog`. The text tower then encodes the sentence as any other.
"""

import torch
from torch import Tensor, nn

from crl.backends.loaded import LoadedVLM
from crl.run.errors import UserError
from crl.vlm import VLM

SIGN = "$"  # stands for the pseudo-word
STAND_INS = ("a", "b")  # written in its place; one token each in all usual vocabularies


class PseudoWords:
    """The text tower of any VLM of open_clip or transformers, for texts with a `$`.

    A hook on the tower's token embedding puts the given vectors into the places of the `$`. The
    tower itself is called as ever, so its mask, pooling, projection and precision stay its own.
    Where the places are, two texts tell that differ in nothing else: no vocabulary needs a `$`.
    """

    def __init__(self, vlm: VLM) -> None:
        """A UserError: a VLM of another kind, or one whose token embedding is out of reach."""
        if not isinstance(vlm, LoadedVLM):
            raise UserError(f"{vlm.name} takes no pseudo-words; use a VLM of open_clip or "
                            "transformers")  # fmt: skip
        self.vlm = vlm
        self.embedding = _token_embedding(vlm)
        self.width: int = self.embedding.embedding_dim  # Dt, of a token

    def encode(
        self, texts: list[str], tokens: Tensor, count: int = -1, otherwise: str | None = None
    ) -> Tensor:
        """B texts with a `$`, and the vector of each one's `$` (B, Dt) -> embeddings (B, D),
        float32, not normalised, with gradients to `tokens` (unless they are switched off).

        Args:
            count: how many `$` of a text get its vector; the further ones stay plain signs.
                -1: all.
            otherwise: replaces a text of which not one `$` is among the tokens that are read.

        Raises:
            UserError: a text without a `$` that is read, and no `otherwise`; vectors of another
                width.
        """
        if tokens.shape != (len(texts), self.width):
            raise UserError(f"{self.vlm.name} takes pseudo-words of width {self.width}, one for "
                            f"each of {len(texts)} texts, not {tuple(tokens.shape)}")  # fmt: skip
        one, other = (self.vlm.token_ids(_filled(texts, word, count)) for word in STAND_INS)
        places = (one != other).nonzero(as_tuple=True)  # row and position of each `$`
        if lost := sorted({*range(len(texts))} - {*places[0].tolist()}):
            if otherwise is None:
                raise UserError(self._lost(texts[lost[0]]))
            texts = [otherwise if row in lost else text for row, text in enumerate(texts)]
            return self.encode(texts, tokens, count)

        def give(module: nn.Module, inputs: tuple, embedded: Tensor) -> Tensor:
            return embedded.index_put(places, tokens[places[0]].to(embedded.dtype))  # (B, L, Dt)

        # Without gradients: in the precision that the VLM was loaded with
        encode = self.vlm.text_features if torch.is_grad_enabled() else self.vlm.encode_texts
        hook = self.embedding.register_forward_hook(give)
        try:
            return encode(_filled(texts, STAND_INS[0], count)).float()
        finally:
            hook.remove()

    def _lost(self, text: str) -> str:
        if SIGN not in text:
            return f"the prompt {text!r} has no {SIGN}, the place of the pseudo-word"
        reads = f"{self.vlm.name} reads {self.vlm.context} tokens"
        return f"the prompt {text!r} is cut before its {SIGN} ({reads}); shorten it"


def _filled(texts: list[str], word: str, count: int) -> list[str]:
    return [" ".join(text.replace(SIGN, f" {word} ", count).split()) for text in texts]


def _token_embedding(vlm: LoadedVLM) -> nn.Embedding:
    """The layer that is given the ids of a text when the text is encoded."""
    one, other = (_filled(["photo of $"], word, 1) for word in STAND_INS)
    ids, others = vlm.token_ids(one), vlm.token_ids(other)
    reached: list[nn.Embedding] = []

    def note(module: nn.Module, inputs: tuple, embedded: Tensor) -> None:
        if inputs and torch.equal(inputs[0].cpu(), ids):
            reached.append(module)

    layers = [module for module in vlm.model.modules() if isinstance(module, nn.Embedding)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        vlm.encode_texts(one)
    finally:
        for hook in hooks:
            hook.remove()
    if len(reached) != 1 or ids.shape != others.shape or (ids != others).sum() != 1:
        raise UserError(f"{vlm.name} takes no pseudo-words: the token embedding of its text tower "
                        "cannot be reached; use another VLM")  # fmt: skip
    return reached[0]
