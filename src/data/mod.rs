//! Contents of tensors.
