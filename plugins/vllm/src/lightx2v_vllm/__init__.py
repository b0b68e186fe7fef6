"""vLLM's fp8 and int8 kernels for lightx2v-core. Importing this package loads no submodules."""
