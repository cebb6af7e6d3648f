"""What stands behind `crl.vlm`: VLMs of open_clip and transformers, their weights, and the hub."""
