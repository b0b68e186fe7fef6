"""xformers attention for lightx2v-core."""
