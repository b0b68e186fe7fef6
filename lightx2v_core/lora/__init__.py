"""LoRA files: which names they use, what they hold, and what of it fits a network. Known from headers, without torch.

``naming`` is the data, ``recognition`` reads one file, ``matching`` compares it with a network, ``delta`` does the
maths when weights are read.
"""
