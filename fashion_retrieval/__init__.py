"""Fashion retrieval by attribute: DeepFashion with ASEN's split (paper, Table 4)."""
