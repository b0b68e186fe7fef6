"""FlashAttention 2 and 3 and SageAttention 2 for lightx2v-core."""
