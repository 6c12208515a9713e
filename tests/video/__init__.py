"""Tests of the package `video`."""
