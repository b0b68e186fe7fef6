"""GGUF files for lightx2v-core. Importing this package loads no submodules."""
