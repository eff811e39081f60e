//! What the kernel counts: CPU time of processes in nanoseconds, of the whole machine in ticks.

use std::collections::HashMap;
use std::fs;

/// USER_HZ, the unit of /proc/stat and of `cutime`: 100 on every Linux that a distribution ships.
const TICK_NS: u64 = 10_000_000;

/// A process and all that descend from it.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| parent_of(&stat)) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        if let Some(more) = children.remove(pid) {
            found.extend(more);
        }
        next += 1;
    }
    found
}

/// The fields of /proc/PID/stat after the name, which may itself hold blanks and brackets.
fn after_name(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace())
}

fn parent_of(stat: &str) -> Option<u32> {
    after_name(stat)?.nth(1)?.parse().ok()
}

/// A process's name, as the kernel keeps it; none when it is gone.
pub(crate) fn name(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, _) = stat.rsplit_once(')')?;
    Some(before.split_once('(')?.1.to_owned())
}

/// CPU time in nanoseconds of all threads of these processes that are alive.
pub(crate) fn cpu_ns(processes: &[u32]) -> u64 {
    let mut sum = 0;
    for pid in processes {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            sum +=
                fs::read_to_string(task.path().join("schedstat")).ok().and_then(|text| on_cpu_ns(&text)).unwrap_or(0);
        }
    }
    sum
}

/// Bytes of memory that is no file's of these processes that are alive.
pub(crate) fn anonymous(processes: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
    };
    processes.iter().filter_map(of).sum()
}

/// The first field of schedstat: nanoseconds on a CPU.
fn on_cpu_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// CPU time of our children that have ended and been waited for, in nanoseconds (counted by the kernel in ticks of 10 ms).
pub(crate) fn ended_children_ns() -> u64 {
    fs::read_to_string("/proc/self/stat").ok().and_then(|stat| children_ticks(&stat)).unwrap_or(0) * TICK_NS
}

fn children_ticks(stat: &str) -> Option<u64> {
    // Fields 16 and 17 of the file; the name is field 2.
    let mut fields = after_name(stat)?.skip(13);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Time of the whole machine since it started, all CPUs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) busy_ns: u64,
    /// Time the hypervisor gave to somebody else while we had work.
    pub(crate) steal_ns: u64,
    pub(crate) total_ns: u64,
}

impl Machine {
    pub(crate) fn now() -> Self {
        fs::read_to_string("/proc/stat").ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            .map_while(|field| field.parse().ok())
            .collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = fields[..] else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self {
            busy_ns: busy * TICK_NS,
            steal_ns: steal * TICK_NS,
            total_ns: (busy + idle + iowait + steal) * TICK_NS,
        })
    }

    /// What passed since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            busy_ns: self.busy_ns.saturating_sub(earlier.busy_ns),
            steal_ns: self.steal_ns.saturating_sub(earlier.steal_ns),
            total_ns: self.total_ns.saturating_sub(earlier.total_ns),
        }
    }

    /// `part` of all the time there was, in percent.
    pub(crate) fn percent(self, part_ns: u64) -> f64 {
        if self.total_ns == 0 { 0.0 } else { 100.0 * part_ns as f64 / self.total_ns as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_begins_with_time_on_a_cpu() {
        assert_eq!(on_cpu_ns("1202533 87381 1\n"), Some(1_202_533));
        assert_eq!(on_cpu_ns(""), None);
        assert_eq!(on_cpu_ns("x 1"), None);
    }

    #[test]
    fn stat_is_read_past_any_name() {
        let stat = "7 (a) b) (c) S 42 7 7 0 -1 4194560 1 2 0 0 10 20 3 4 20 0 1 0 99";
        assert_eq!(parent_of(stat), Some(42));
        assert_eq!(children_ticks(stat), Some(7));
        assert_eq!(parent_of("7 (a"), None);
    }

    #[test]
    fn the_machine_line() {
        let machine = Machine::parse("cpu  100 1 50 1000 5 2 3 4 9 9\ncpu0 1 1 1\n").unwrap();
        assert_eq!(machine, Machine { busy_ns: 156 * TICK_NS, steal_ns: 4 * TICK_NS, total_ns: 1_165 * TICK_NS });
        assert_eq!(Machine::parse("cpu0 1 2 3"), None);
        let later = Machine { busy_ns: 2, steal_ns: 1, total_ns: 100 };
        assert_eq!(later.percent(later.since(Machine::default()).steal_ns), 1.0);
        assert_eq!(Machine::default().percent(5), 0.0);
    }

    #[test]
    fn this_process_has_used_time_and_is_in_its_own_tree() {
        let me = std::process::id();
        assert!(cpu_ns(&[me]) > 0);
        assert!(tree(me).contains(&me));
        assert!(name(me).is_some());
        assert_eq!(name(u32::MAX), None);
    }
}
