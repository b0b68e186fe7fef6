"""CPU and disk offload for lightx2v-core. Importing this package loads no submodules."""
