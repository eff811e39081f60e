//! Programs in the kernel, as far as this process may load any.

/// What was loaded, or `None` where this process may not load it, which is said.
pub(crate) fn granted<T>(loaded: Result<T, String>) -> Option<T> {
    match loaded {
        Ok(program) => Some(program),
        Err(why) if why.contains("CAP_BPF") || why.contains("not supported") => {
            println!("SKIPPED: {why}");
            None
        }
        Err(why) => panic!("{why}"),
    }
}
