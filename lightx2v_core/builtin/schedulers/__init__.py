"""Flow-matching schedulers: noise grids and solvers."""
