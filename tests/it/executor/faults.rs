//! Kernels and devices that go wrong, and what is said of them.
