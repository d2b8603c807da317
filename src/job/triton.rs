//! `triton`: the launch metadata that Triton leaves beside a compiled kernel -> its entry, block, shared memory and the
//! parameters that it takes behind those of the spec.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::kernels::Block;
use super::names::Resolver;
use super::source::{backend_of, is_built_for_cuda};
use crate::device::Code;
use crate::diag::{Diagnostic, Place};
use crate::spec::{self, Backend, PerBackend, Source};
use crate::tensor::{Param, ParamKind};

/// Threads of a warp on every NVIDIA GPU.
const WARP: u32 = 32;

/// How a kernel that Triton compiled is launched.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Launch {
    pub entry: String,
    /// Threads of a block, all in x.
    pub threads: u32,
    /// Dynamic shared memory. *Units*: bytes.
    pub shared: u64,
    /// Pointers to scratch behind the kernel's own parameters, all null.
    pub hidden: u32,
}

/// What the metadata says, of Triton 3.0 and later; keys that are of no concern to a launch differ from version to version.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    num_warps: u32,
    shared: u64,
    #[serde(default)]
    target: Value,
    warp_size: Option<u32>,
    num_ctas: Option<u32>,
    cluster_dims: Option<Vec<u32>>,
    /// From 3.3 on a kernel takes a pointer to it, whatever its size.
    global_scratch_size: Option<u64>,
    /// From 3.5 on.
    profile_scratch_size: Option<u64>,
    launch_cooperative_grid: Option<bool>,
    tensordesc_meta: Option<Vec<Value>>,
    instrumentation_mode: Option<String>,
}

impl Metadata {
    fn read(path: &Path) -> Result<Metadata, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if value.get("child_paths").is_some() {
            return Err("it is a list of files; the one with `num_warps` lies beside it, without `__grp__`".into());
        }
        Metadata::deserialize(value).map_err(|error| error.to_string())
    }

    /// Everything that a launch from a spec cannot give the kernel.
    fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        if let Some(backend) = self.target.get("backend").and_then(Value::as_str).filter(|backend| *backend != "cuda") {
            lacks.push(format!("it is for `{backend}`, not for `cuda`"));
        }
        if let Some(size) = self.warp_size.filter(|&size| size != WARP) {
            lacks.push(format!("its warps have {size} threads, those of NVIDIA GPUs have {WARP}"));
        }
        let cluster = self.cluster_dims.iter().flatten().chain(&self.num_ctas).copied().max().unwrap_or(1);
        if cluster > 1 {
            lacks.push(format!("it is launched in clusters of {cluster} blocks: compile it with `num_ctas = 1`"));
        }
        for (what, size) in [("global", self.global_scratch_size), ("profile", self.profile_scratch_size)] {
            if let Some(size) = size.filter(|&size| size > 0) {
                lacks.push(format!("it needs {size} bytes of {what} scratch for each block, which only Triton's launcher allocates"));
            }
        }
        if self.launch_cooperative_grid == Some(true) {
            lacks.push("it is launched as a cooperative grid: compile it with `launch_cooperative_grid = False`".into());
        }
        if self.tensordesc_meta.as_ref().is_some_and(|meta| !meta.is_empty()) {
            lacks.push("it takes tensor descriptors, which a spec cannot say: pass pointers and sizes".into());
        }
        if let Some(mode) = self.instrumentation_mode.as_ref().filter(|mode| !mode.is_empty()) {
            lacks.push(format!("it was compiled with the instrumentation `{mode}`"));
        }
        if !(1..=32).contains(&self.num_warps) {
            lacks.push(format!("it has {} warps, a block has 1 to 32", self.num_warps));
        }
        lacks
    }

    fn launch(self) -> Launch {
        let hidden = [self.global_scratch_size, self.profile_scratch_size].iter().flatten().count() as u32;
        Launch { entry: self.name, threads: WARP * self.num_warps, shared: self.shared, hidden }
    }
}

impl Resolver<'_> {
    /// How the kernel is launched, where Triton says it; `None` where a mistake is reported.
    pub(super) fn triton(&self, at: &Place, kernel: &spec::Kernel, code: Option<&Code>) -> Option<Option<Launch>> {
        let Some(path) = &kernel.triton else { return Some(None) };
        let here = at.to("triton");
        let source = kernel.source.as_ref().or(self.spec.source.as_ref());
        let for_cuda = source.and_then(|source| match source {
            PerBackend::All(Source::File(path)) => (backend_of(path) == Some(Backend::Cuda)).then_some(()),
            _ => source.get(Backend::Cuda).map(|_| ()),
        });
        if source.is_some() && for_cuda.is_none() && !self.loaded.is_damaged(&at.to("source")) {
            let message = "`triton` is about a kernel for `cuda`, and `source` has none";
            self.report(Diagnostic::error("triton", here.key(), message).help("write `source = { cuda = \"name.cubin\" }`"));
            return None;
        }
        if self.backend != Backend::Cuda {
            return Some(None);
        }
        if !is_built_for_cuda(code?) {
            let message = "`triton` is about a kernel that Triton compiled: its source ends in .cubin or .ptx";
            self.report(Diagnostic::error("triton", here.key(), message));
            return None;
        }
        let full = self.source_file(here.clone(), path)?;
        let metadata = match Metadata::read(&full) {
            Ok(metadata) => metadata,
            Err(error) => {
                let message = format!("`{path}` is not the metadata of a kernel that Triton compiled: {error}");
                let help = "it is the .json that Triton writes beside the .cubin, in its cache";
                self.report(Diagnostic::error("triton", here, message).help(help));
                return None;
            }
        };
        let lacks = metadata.lacks();
        if !lacks.is_empty() {
            let message = format!("kernel `{}` cannot be launched from a spec", metadata.name);
            self.report(lacks.into_iter().fold(Diagnostic::error("triton", here, message), Diagnostic::help));
            return None;
        }
        Some(Some(metadata.launch()))
    }

    /// Whether what the spec says besides agrees with the metadata.
    pub(super) fn agrees_with_triton(
        &self,
        at: &Place,
        kernel: &spec::Kernel,
        launch: &Launch,
        params: &[Param],
        block: Block,
        shared: u64,
    ) -> bool {
        let mut ok = true;
        let mut disagrees = |key: &str, message: String| {
            ok = false;
            let help = format!("drop `{key}`: `triton` says it");
            self.report(Diagnostic::error("triton", at.to(key).key(), message).help(help));
        };
        let threads = launch.threads;
        if kernel.block.is_some() && block != Some([threads, 1, 1]) {
            let said = block.unwrap_or([1; 3]);
            disagrees("block", format!("the kernel was compiled for blocks of [{threads}, 1, 1] threads, `block` is {said:?}"));
        }
        if kernel.shared.is_some() && shared != launch.shared {
            disagrees("shared", format!("the kernel was compiled for {} bytes of shared memory, `shared` is {shared}", launch.shared));
        }
        let entry = kernel.entry.as_ref().and_then(|entry| entry.get(self.backend));
        if let Some((_, entry)) = entry.filter(|(_, entry)| **entry != launch.entry) {
            disagrees("entry", format!("the kernel is called `{}`, `entry` is `{entry}`", launch.entry));
        }
        if let Some(index) = params.iter().position(|param| matches!(param.kind, ParamKind::Local { .. })) {
            ok = false;
            let message = format!("`{}`: a kernel that Triton compiled has its own scratch and no other", params[index]);
            self.report(Diagnostic::error("triton", at.to("params").to(index), message).help("drop it"));
        }
        ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(more: &str) -> Metadata {
        serde_json::from_str(&format!(r#"{{ "name": "add", "num_warps": 4, "shared": 96, "num_stages": 3{more} }}"#)).expect("metadata")
    }

    #[test]
    fn pointers_to_scratch_are_those_that_the_metadata_sizes() {
        for (more, hidden) in [
            ("", 0),
            (r#", "cluster_dims": [1, 1, 1], "num_ctas": 1"#, 0),
            (r#", "global_scratch_size": 0"#, 1),
            (r#", "global_scratch_size": 0, "profile_scratch_size": 0, "tensordesc_meta": [], "instrumentation_mode": """#, 2),
        ] {
            let metadata = metadata(more);
            assert_eq!(metadata.lacks(), [""; 0], "{more}");
            assert_eq!(metadata.launch(), Launch { entry: "add".into(), threads: 128, shared: 96, hidden }, "{more}");
        }
    }

    #[test]
    fn what_only_tritons_launcher_gives_is_refused() {
        for (more, says) in [
            (r#", "target": { "backend": "hip", "arch": "gfx942", "warp_size": 64 }"#, "for `hip`"),
            (r#", "warp_size": 64"#, "64 threads"),
            (r#", "num_ctas": 2"#, "clusters of 2"),
            (r#", "cluster_dims": [1, 4, 1]"#, "clusters of 4"),
            (r#", "global_scratch_size": 128"#, "128 bytes of global scratch"),
            (r#", "profile_scratch_size": 8"#, "8 bytes of profile scratch"),
            (r#", "launch_cooperative_grid": true"#, "cooperative"),
            (r#", "tensordesc_meta": [{ "swizzle": 3 }]"#, "tensor descriptors"),
            (r#", "instrumentation_mode": "fpsan""#, "fpsan"),
        ] {
            let lacks = metadata(more).lacks();
            assert!(lacks.len() == 1 && lacks[0].contains(says), "{more}: {lacks:?}");
        }
        let none: Metadata = serde_json::from_str(r#"{ "name": "add", "num_warps": 0, "shared": 0 }"#).expect("metadata");
        assert_eq!(none.lacks().len(), 1);
    }
}
