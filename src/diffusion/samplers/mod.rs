//! Reverse steps: DDPM, DDIM, predictor-corrector, 2M and 2M-SDE, one per file.
