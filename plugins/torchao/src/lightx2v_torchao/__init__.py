"""torchao's int8 and fp8 products for lightx2v-core. Importing this package imports nothing."""
