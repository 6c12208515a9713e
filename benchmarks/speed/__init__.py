"""Latency, memory, profiles and what bounds them."""
