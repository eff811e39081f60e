//! The binary: reads the command line, and does what it says.

#![forbid(unsafe_code)]

/// Counted, so that "no allocation per request" is a figure of the running binary (`penstock_allocations_total`).
#[global_allocator]
static ALLOCATOR: ring::alloc::Counting<mimalloc::MiMalloc> = ring::alloc::Counting(mimalloc::MiMalloc);

fn main() -> std::process::ExitCode {
    ring::small_pages();
    penstock::command::main()
}
