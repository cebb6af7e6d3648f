"""Few-shot classification and clustering under a criterion (paper, Tables 1 and 2)."""
