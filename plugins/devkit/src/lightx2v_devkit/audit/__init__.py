"""Problems and notes about installed plugins: ``lightx2v-core plugins check``."""
