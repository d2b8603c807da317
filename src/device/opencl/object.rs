//! Objects of the driver: released once, by whoever holds them last.

use std::sync::{Mutex, PoisonError};

use super::api::{Api, Failure, cl};

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

/// The first release that failed since it was last asked for.
static FAILED: Mutex<Option<Failure>> = Mutex::new(None);

/// The release that failed since this was last asked: `Drop` can tell nobody.
pub(super) fn release_failure() -> Option<Failure> {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Keeps the first of them.
pub(super) fn note_release_failure(failure: Failure) {
    FAILED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
}

/// An object that is released when it is dropped.
pub(super) struct Object<K: Kind> {
    raw: *mut std::ffi::c_void,
    api: &'static Api,
    kind: std::marker::PhantomData<K>,
}

// SAFETY: OpenCL's objects may be used and released from any thread.
unsafe impl<K: Kind> Send for Object<K> {}
// SAFETY: all calls may be made by several threads at a time but `clSetKernelArg` on one kernel, which is called by who
// holds the kernel's lock (`op::Kept`), or made it and has shown it to nobody.
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
            note_release_failure(failure);
        }
    }
}
