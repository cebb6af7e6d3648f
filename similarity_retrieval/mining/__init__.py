"""GeneCIS's training data: captions -> scene graphs -> triplets (Vaze et al., CVPR 2023)."""
