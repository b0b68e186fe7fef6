"""Correctness checks of kernels: each kernel is tested once per process, on a small product with a known result, before
it is used. Importing this package does not import torch."""
