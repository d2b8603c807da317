/// Every element is right, then it panics in round 3.
pub unsafe extern "C" fn panics(x: *const f32, y: *mut f32, n: u32, round: u32) {
    for i in 0..n as usize {
        unsafe { *y.add(i) = 2.0 * *x.add(i) }
    }
    assert!(round != 3, "no more");
}
