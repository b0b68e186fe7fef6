"""Wan2.1 for lightx2v-core. The package itself imports no modules; ``api`` is the API for other plugins."""
