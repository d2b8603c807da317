//! The program: see `runjob::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runjob::cli::main()
}
