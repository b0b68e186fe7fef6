"""Wan2.1 for lightx2v-core. Importing this package imports nothing; ``api`` is what other plugins may use."""
