"""A plugin for lightx2v-core."""
