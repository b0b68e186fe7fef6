"""Tools for plugin authors: ``plugins check`` and ``plugins new``. Importing this package imports nothing else."""
