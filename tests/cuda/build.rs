//! Builds the simulated CUDA driver and NVRTC with the system's C++ compiler, once per content of their sources.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The simulated libraries, in one folder.
#[allow(dead_code, reason = "each kind of test takes what it needs")]
pub struct Libraries {
    /// Stands for the driver: `RUNJOB_CUDA`.
    pub cuda: PathBuf,
    /// Stands for NVRTC: `RUNJOB_NVRTC`.
    pub nvrtc: PathBuf,
    /// A program that tries both; its first argument names a case, its second the folder.
    pub selftest: PathBuf,
}

impl Libraries {
    /// Compiles a `.cu` file for the simulated driver: to PTX where `to` is a `.ptx` file, and to a cubin otherwise.
    ///
    /// *Panics* when the compiler refuses it.
    #[allow(dead_code, reason = "each kind of test takes what it needs")]
    pub fn image(&self, from: &Path, to: &Path) {
        let folder = self.cuda.parent().unwrap();
        let made = Command::new(&self.selftest).arg("compile").args([folder, from, to]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}

const HEADERS: [&str; 6] = ["abi.h", "sim.h", "kernel.h", "nvrtc.h", "cuda_on_host.h", "cuda_math_on_host.h"];
const DRIVER: [&str; 6] = ["core.cpp", "memory.cpp", "streams.cpp", "graphs.cpp", "modules.cpp", "blocks.cpp"];
const NVRTC: [&str; 3] = ["nvrtc.cpp", "rewrite.cpp", "messages.cpp"];
const SELFTEST: [&str; 1] = ["selftest.cpp"];
const FLAGS: [&str; 5] = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE"];

/// The libraries; `None` where there is no C++ compiler, or no Linux.
///
/// *Panics* when the compiler refuses them.
pub fn libraries() -> Option<&'static Libraries> {
    static BUILT: OnceLock<Option<Libraries>> = OnceLock::new();
    BUILT.get_or_init(|| if cfg!(target_os = "linux") && compiles() { Some(build()) } else { None }).as_ref()
}

/// Says whether there is a compiler.
fn compiles() -> bool {
    Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Builds beside the test's executable, where no build of the same sources is there already.
fn build() -> Libraries {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
    let mut hasher = DefaultHasher::new();
    FLAGS.hash(&mut hasher);
    for name in HEADERS.iter().chain(&DRIVER).chain(&NVRTC).chain(&SELFTEST) {
        std::fs::read(sources.join(name)).unwrap().hash(&mut hasher);
    }
    let executable = std::env::current_exe().unwrap();
    let beside = executable.parent().unwrap();
    let folder = beside.join(format!("simulated-cuda-{:016x}", hasher.finish()));
    if !folder.exists() {
        let making = beside.join(format!("simulated-cuda-{}", std::process::id()));
        std::fs::create_dir_all(&making).unwrap();
        // Kernels are compiled against the headers that lie beside the library.
        for name in HEADERS {
            std::fs::copy(sources.join(name), making.join(name)).unwrap();
        }
        std::thread::scope(|scope| {
            scope.spawn(|| compile(&sources, &DRIVER, &making.join("libcuda.so"), &["-shared", "-Wl,-soname,libcuda.so", "-Wl,-z,defs"]));
            scope.spawn(|| compile(&sources, &NVRTC, &making.join("libnvrtc.so"), &["-shared", "-Wl,-soname,libnvrtc.so", "-Wl,-z,defs"]));
            scope.spawn(|| compile(&sources, &SELFTEST, &making.join("selftest"), &[]));
        });
        // Another process may have been first.
        if std::fs::rename(&making, &folder).is_err() {
            std::fs::remove_dir_all(&making).unwrap();
        }
    }
    Libraries { cuda: folder.join("libcuda.so"), nvrtc: folder.join("libnvrtc.so"), selftest: folder.join("selftest") }
}

fn compile(sources: &Path, files: &[&str], out: &Path, flags: &[&str]) {
    let mut compiler = Command::new("c++");
    compiler.args(FLAGS).args(flags).args(files.iter().map(|file| sources.join(file))).arg("-o").arg(out).args(["-ldl", "-lpthread"]);
    let built = compiler.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
