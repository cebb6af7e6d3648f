"""Rivals of the paper's Table 3: an image becomes a word of a sentence."""

from similarity_retrieval.rivals.lincir import LinCIR
from similarity_retrieval.rivals.pic2word import Pic2Word
from similarity_retrieval.rivals.searle import SEARLE

METHODS: dict[str, type[LinCIR] | type[Pic2Word] | type[SEARLE]]
METHODS = {"lincir": LinCIR, "pic2word": Pic2Word, "searle": SEARLE}
