"""A plugin of lightx2v-core."""
