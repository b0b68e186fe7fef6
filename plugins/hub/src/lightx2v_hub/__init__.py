"""The subcommand ``download``: which files of which repository, and how they come into a model's folder.

Nothing here imports torch.
"""
