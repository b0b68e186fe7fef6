"""LoRA files: their naming schemes, their contents, and how they match a network. Uses headers only, without torch.

``naming`` is the data, ``recognition`` parses one file, ``matching`` compares it with a network, ``delta`` computes the
changes when weights are read.
"""
