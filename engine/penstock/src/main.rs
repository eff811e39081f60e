//! The binary: reads the command line, and does what it says.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    penstock::command::main()
}
