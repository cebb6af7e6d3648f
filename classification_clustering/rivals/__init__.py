"""Rivals of the paper's Table 2, which are trained on the images that they cluster."""

from classification_clustering.rivals.cc import CC
from classification_clustering.rivals.method import Method
from classification_clustering.rivals.multi_map import MultiMaP
from classification_clustering.rivals.scan import SCAN

METHODS: dict[str, type[Method]] = {"cc": CC, "scan": SCAN, "multi_map": MultiMaP}
