"""torchao's int8 and fp8 matmuls for lightx2v-core. Importing this package loads no submodules."""
