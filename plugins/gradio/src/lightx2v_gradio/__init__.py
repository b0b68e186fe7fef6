"""The web page of lightx2v-core: the subcommand `ui`."""
