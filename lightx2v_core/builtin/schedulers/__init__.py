"""Flow-matching schedulers: the noise grids and the solvers that walk down them."""
