"""Wan2.2 for lightx2v-core. The package itself imports no modules."""
