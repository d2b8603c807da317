//! The CPU as a device.

/// A kernel compiled into this program: called once per block.
///
/// `args` points to one pointer per parameter that is not `local`, then one per `local` parameter: to the tensor's
/// first byte, to the scalar's bits, or to the block's scratch.
pub type Builtin = unsafe fn(args: *const *mut u8, at: &BlockAt);

/// Where a block is in its grid, x first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockAt {
    pub block: [u32; 3],
    pub grid: [u32; 3],
    pub block_dim: [u32; 3],
}
