"""The quantizers of the core, which need only PyTorch."""
