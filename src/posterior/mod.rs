//! Posterior denoisers, E[x | x_t, y]: MMPS with its solvers and covariances.
