"""The core's own implementations. They go through the same hooks as everybody's."""
