"""SCAN: to be written."""

from classification_clustering.rivals.cc import CC


class SCAN(CC):
    """To be written."""
