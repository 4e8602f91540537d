"""GPU kernels in Triton, each beside a plain PyTorch form of the same signature elsewhere."""
