"""Building engines from a bundle."""
