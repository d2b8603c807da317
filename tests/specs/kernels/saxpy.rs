//! y += a * x, a block of `TILE` elements at a time.

/// # Safety
/// `x` and `y` have `n` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn saxpy(x: *const f32, y: *mut f32, a: f32, n: u32) {
    let from = runjob::block(0) * TILE!();
    for i in from..n.min(from + TILE!()) {
        unsafe { *y.add(i as usize) += a * *x.add(i as usize) }
    }
}

/// Halves what it is given, in a type that Rust does not have.
///
/// # Safety
/// `y` has `n` elements.
pub unsafe extern "C" fn halve(y: *mut runjob::bf16, n: u32) {
    for i in 0..n as usize {
        unsafe { *y.add(i) = runjob::bf16::from_f32((*y.add(i)).to_f32() / 2.0) }
    }
}
