"""What is wrong with installed plugins, and what their authors should know: ``lightx2v-core plugins check``."""
