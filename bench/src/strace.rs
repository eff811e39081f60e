//! System calls per request, counted by `strace -c` over a short round of its own.
//!
//! Under strace every call costs ten times as much, so more events pile up per turn than in truth: an event loop's calls per request are a little
//! lower here than they really are. What goes through an io_uring is not seen at all, only `io_uring_enter`; Penstock tells its own counters.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use xtask::{Outcome, place};

use crate::process;

/// Calls that hand bytes to the network.
const SENDS: &[&str] = &["write", "writev", "pwritev", "send", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice"];

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) total: u64,
    pub(crate) sends: u64,
    /// Every call with how often, the most frequent first.
    pub(crate) each: Vec<(String, u64)>,
}

/// Counts the calls of these processes while `work` runs.
pub(crate) fn during<T>(processes: &[u32], folder: &Path, work: impl FnOnce() -> Outcome<T>) -> Outcome<(Calls, T)> {
    let strace = place::program("strace").ok_or("strace is not installed (apt-get install strace)")?;
    let table = folder.join("strace");
    let mut command = Command::new(strace);
    command.args(["-c", "-f", "-q", "-o"]).arg(&table);
    for pid in processes {
        command.arg("-p").arg(pid.to_string());
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("strace: {error}"))?;
    let attached = wait_until_attached(processes, child.id());
    let done = if attached { work() } else { Err("strace could not attach (ptrace may be forbidden here)".to_owned()) };
    // It writes its table when it is interrupted, and lets go of the processes.
    process::signal(child.id(), Signal::INT);
    child.wait().map_err(|error| format!("strace: {error}"))?;
    let text = std::fs::read_to_string(&table).map_err(|error| format!("strace told nothing: {error}"))?;
    done.map(|done| (parse(&text), done))
}

fn wait_until_attached(processes: &[u32], tracer: u32) -> bool {
    let traced = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
            status
                .lines()
                .any(|line| line.strip_prefix("TracerPid:").is_some_and(|value| value.trim() == tracer.to_string()))
        })
    };
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        if processes.iter().all(traced) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// The table of `strace -c`: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn parse(table: &str) -> Calls {
    let mut calls = Calls::default();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(Ok(count)), Some(name)) = (fields.get(3).map(|field| field.parse::<u64>()), fields.last()) else {
            continue;
        };
        if *name == "total" || fields.len() < 5 {
            continue;
        }
        calls.total += count;
        if SENDS.contains(name) {
            calls.sends += count;
        }
        calls.each.push(((*name).to_owned(), count));
    }
    calls.each.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_with_and_without_errors() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.600000           3     20000           writev
 30.00    0.300000           3     30000     10000 recvfrom
 10.00    0.100000          10      1000           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000           3     51000     10000 total
";
        let calls = parse(table);
        assert_eq!((calls.total, calls.sends), (51_000, 20_000));
        assert_eq!(calls.each[0], ("recvfrom".to_owned(), 30_000));
        assert_eq!(parse(""), Calls::default());
    }
}
