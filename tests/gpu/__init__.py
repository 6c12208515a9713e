"""Tests of what needs a GPU."""
