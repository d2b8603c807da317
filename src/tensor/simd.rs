//! Picks the widest vector instructions that the processor has, once per call of a block routine.

/// Which instructions a routine is compiled for. All levels give the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

#[cfg(test)]
thread_local! {
    static FORCED: std::cell::Cell<Option<Level>> = const { std::cell::Cell::new(None) };
}

impl Level {
    /// The best level of this processor. Costs a load: the standard library caches the answer.
    #[inline]
    pub(crate) fn detect() -> Level {
        #[cfg(test)]
        if let Some(level) = FORCED.get() {
            return level;
        }
        #[cfg(target_arch = "x86_64")]
        {
            if Level::Avx512.available() {
                return Level::Avx512;
            }
            if Level::Avx2.available() {
                return Level::Avx2;
            }
        }
        Level::Portable
    }

    /// Runs something in which this thread finds that level.
    #[cfg(test)]
    pub(crate) fn force<T>(self, run: impl FnOnce() -> T) -> T {
        let before = FORCED.replace(Some(self));
        let result = run();
        FORCED.set(before);
        result
    }

    /// Whether this processor has the level's instructions.
    #[inline]
    pub(crate) fn available(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
        }
    }

    /// Whether the level has a multiplication and addition that round once, as an instruction.
    pub(crate) fn fuses(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Level::Avx512;
        #[cfg(not(target_arch = "x86_64"))]
        return cfg!(target_arch = "aarch64");
    }

    /// The levels of this processor, for tests that compare them.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Level> {
        #[cfg(target_arch = "x86_64")]
        let levels = vec![Level::Portable, Level::Avx2, Level::Avx512];
        #[cfg(not(target_arch = "x86_64"))]
        let levels = vec![Level::Portable];
        levels.into_iter().filter(|level| level.available()).collect()
    }
}

/// Asks for bytes that will be read soon; nothing else happens.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of this kind has the instruction, and it touches nothing that a program can see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Compiles one body per level and calls the one that the first argument names.
///
/// The body is plain Rust that the compiler vectorises; what it calls must be `#[inline(always)]`.
macro_rules! per_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($level:ident; $($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($level: $crate::tensor::simd::Level, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body($($arg),*)
            }

            debug_assert!($level.available());
            match $level {
                $crate::tensor::simd::Level::Portable => body($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Level` other than `Portable` is only made where the processor has its instructions.
                $crate::tensor::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::tensor::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use per_level;
