"""Wan2.2 for lightx2v-core. Importing this package imports nothing."""
