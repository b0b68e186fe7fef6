"""A tiny trained Wan2.1 in the official layout, for lightx2v-core."""
