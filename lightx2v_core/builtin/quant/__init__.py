"""The core's own quantizers: PyTorch only."""
