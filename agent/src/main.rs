//! The `remora` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    remora::cli::main()
}
