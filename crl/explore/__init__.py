"""A folder of images, looked at under criteria of one's own; see `crl.explore.collection`."""
