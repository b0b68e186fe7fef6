"""A small video model, a scheduler and an attention kernel for lightx2v-core."""
