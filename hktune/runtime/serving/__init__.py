"""What serves a call: kernels and the vendor's algorithms, found by shapes, launched on torch's tensors."""
