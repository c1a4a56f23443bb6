//! The program `resprout`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    resprout_kernels::memory::give_back_large_blocks();
    ExitCode::from(resprout_cli::main(std::env::args_os()))
}
