//! Objects of the driver: released once, by whoever holds them last.

use std::sync::atomic::{AtomicI32, Ordering};

use opencl_sys::*;

use super::api::{Api, cl};

/// A kind of object: how one is released.
pub(super) trait Kind {
    fn release(api: &Api, raw: *mut std::ffi::c_void) -> super::api::Called<()>;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $release:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $kind;

        impl Kind for $kind {
            fn release(api: &Api, raw: *mut std::ffi::c_void) -> super::api::Called<()> {
                cl!(api.$release(raw))
            }
        }
    )*};
}

kinds! {
    Context: clReleaseContext,
    Queue: clReleaseCommandQueue,
    Buffer: clReleaseMemObject,
    Event: clReleaseEvent,
    Program: clReleaseProgram,
    Kernel: clReleaseKernel,
}

/// The code of the first release that failed since it was last asked for; 0 where none did.
static FAILED: AtomicI32 = AtomicI32::new(CL_SUCCESS);

/// What made a release fail since this was last asked: `Drop` can tell nobody.
pub(super) fn release_failure() -> Option<cl_int> {
    Some(FAILED.swap(CL_SUCCESS, Ordering::Relaxed)).filter(|&code| code != CL_SUCCESS)
}

/// Keeps the first of them.
pub(super) fn note_release_failure(code: cl_int) {
    let _ = FAILED.compare_exchange(CL_SUCCESS, code, Ordering::Relaxed, Ordering::Relaxed);
}

/// An object that is released when it is dropped.
pub(super) struct Object<K: Kind> {
    raw: *mut std::ffi::c_void,
    api: &'static Api,
    kind: std::marker::PhantomData<K>,
}

// SAFETY: OpenCL's objects may be used and released from any thread; what may not be used from two at a time
// (`clSetKernelArg`) is called by whoever owns the kernel.
unsafe impl<K: Kind> Send for Object<K> {}
// SAFETY: as above.
unsafe impl<K: Kind> Sync for Object<K> {}

impl<K: Kind> Object<K> {
    /// Takes an object that a call made.
    pub fn new(api: &'static Api, raw: *mut std::ffi::c_void) -> Object<K> {
        Object { raw, api, kind: std::marker::PhantomData }
    }

    pub fn raw(&self) -> *mut std::ffi::c_void {
        self.raw
    }
}

impl<K: Kind> Drop for Object<K> {
    fn drop(&mut self) {
        if !self.raw.is_null()
            && let Err(failure) = K::release(self.api, self.raw)
        {
            note_release_failure(failure.code);
        }
    }
}
