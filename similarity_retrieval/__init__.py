"""Image retrieval under a condition: the GeneCIS benchmark (paper, Table 3)."""
