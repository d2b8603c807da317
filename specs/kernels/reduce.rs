//! The sum of `x` in two passes. `runjob::block` and `runjob::grid` say where a block is.

/// Sum of one block's share of `x`, in lanes that the compiler turns into vectors.
///
/// # Safety
/// `x` has `n` elements, `partial` one for each block.
unsafe extern "C" fn partial_sums(x: *const f32, partial: *mut f32, n: u32) {
    let (block, blocks) = (runjob::block(0) as usize, runjob::grid(0) as usize);
    let x = unsafe { std::slice::from_raw_parts(x, n as usize) };
    let share = x.len().div_ceil(blocks);
    let mine = &x[(block * share).min(x.len())..((block + 1) * share).min(x.len())];
    let (wide, rest) = mine.as_chunks::<16>();
    let mut lanes = [0.0f32; 16];
    for chunk in wide {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    let sum = lanes.iter().chain(rest).sum::<f32>();
    unsafe { *partial.add(block) = sum };
}

/// Sum of all partial sums.
///
/// # Safety
/// `partial` has `blocks` elements, `sum` has one.
unsafe extern "C" fn total(partial: *const f32, sum: *mut f32, blocks: u32) {
    unsafe { *sum = std::slice::from_raw_parts(partial, blocks as usize).iter().sum() };
}
