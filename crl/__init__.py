"""Conditional Representation Learning: R = I Tᵀ."""
