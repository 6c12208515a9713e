"""Tests of sed-trt."""
