//! The processor's floating-point mode after foreign code ran in a thread.
//!
//! A kernel may change the rounding or switch subnormals off, and a library linked with `-ffast-math` does the latter
//! when it is loaded. Inputs and expectations that the host computes in that mode would be wrong in the same way as
//! the kernel, and agree with it.

/// Puts the mode back: rounding to nearest, subnormals as they are, no traps. Costs a few cycles where nothing changed.
#[inline(always)]
pub(super) fn restore() {
    #[cfg(target_arch = "x86_64")]
    {
        /// All exceptions masked, nothing else set; the lowest six bits only say what has happened.
        const DEFAULT: u32 = 0x1f80;
        const HAPPENED: u32 = 0x3f;
        let mut mode = 0u32;
        // SAFETY: stores the mode's 32 bits to a variable of that size.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mode, options(nostack, preserves_flags)) };
        if mode & !HAPPENED != DEFAULT {
            let default = DEFAULT;
            // SAFETY: loads the mode that every Rust program starts with.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const default, options(nostack, preserves_flags)) };
        }
    }
}
