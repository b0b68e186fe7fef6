"""The subcommand ``download``: selects the files of a model and fetches them into its folder.

Does not import torch.
"""
