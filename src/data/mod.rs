//! Files: arrays (npy, npz), observations, checkpoints, images.
