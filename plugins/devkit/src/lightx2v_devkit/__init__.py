"""What plugin authors work with: ``plugins check`` and ``plugins new``. Importing this package imports nothing."""
