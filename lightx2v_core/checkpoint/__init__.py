"""Model folders: which file is which component, what the headers say, and how weights reach a module."""
