//! Which CPUs this process may work on, and which of them it will.

use crate::snapshot::{Cores, cpu_list};

/// The CPUs to put a worker on each.
///
/// # Errors
/// A sentence for the operator, when the configuration names a CPU that is not ours.
pub fn choose(cores: &Cores, allowed: &[u16]) -> Result<Vec<u16>, String> {
    match cores {
        Cores::Auto => Ok(allowed.to_vec()),
        Cores::List(wanted) => match wanted.iter().find(|cpu| !allowed.contains(cpu)) {
            None => Ok(wanted.to_vec()),
            Some(foreign) => Err(format!(
                "cores: CPU {foreign} is not one that this process may use; it may use {}",
                cpu_list(allowed)
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours() {
        let choose = |text: &str| choose(&text.parse().unwrap(), &[0, 1, 2, 5]);
        assert_eq!(choose("auto"), Ok(vec![0, 1, 2, 5]));
        assert_eq!(choose("1,5"), Ok(vec![1, 5]));
        assert!(choose("1-3").unwrap_err().ends_with("CPU 3 is not one that this process may use; it may use 0-2,5"));
        assert!(!ring::allowed_cpus().unwrap().is_empty());
    }
}
