"""The implementations of the core. They use the same hooks as third-party plugins."""
