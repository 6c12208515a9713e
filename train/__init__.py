"""Training: a small CLIP on image-caption pairs, then SED on top of it."""
