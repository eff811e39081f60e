//! `penstock doctor`: what this host grants, what that means for us, and how to get more.
//!
//! Every line is a value found beside the value wanted, with what the difference costs and the exact command that removes
//! it. Nothing is changed here. `fail` means that the engine cannot do its work; `warn`, that it does it with less.

mod host;
mod kernel;
mod sockets;

use super::{HOST_UNFIT, say};
use clap::Args;
use host::Host;
use serde_json::{Value, json};
use std::{fmt::Write, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    state: State,
    name: &'static str,
    found: String,
    wanted: &'static str,
    /// What it costs us; empty when nothing.
    effect: &'static str,
    /// What to type.
    fix: String,
}

impl Finding {
    /// As it should be, or else a matter of `state` with its effect and fix.
    fn judge(good: bool, otherwise: State, name: &'static str, found: impl Into<String>, wanted: &'static str) -> Self {
        let state = if good { State::Ok } else { otherwise };
        Self { state, name, found: found.into(), wanted, effect: "", fix: String::new() }
    }

    fn costs(mut self, effect: &'static str, fix: impl Into<String>) -> Self {
        if self.state != State::Ok {
            (self.effect, self.fix) = (effect, fix.into());
        }
        self
    }
}

/// The fix that is a kernel setting.
fn sysctl(setting: &str) -> String {
    format!("sysctl -w '{setting}'  (to keep: echo '{setting}' >> /etc/sysctl.d/90-penstock.conf)")
}

pub(super) fn doctor(args: &DoctorArgs) -> ExitCode {
    let host = Host::this();
    let findings = examine(&host);
    say(&if args.json { format!("{:#}\n", to_json(&findings)) } else { render(&findings) });
    if worst(&findings) == State::Fail { ExitCode::from(HOST_UNFIT) } else { ExitCode::SUCCESS }
}

fn examine(host: &Host) -> Vec<Finding> {
    let mut findings = kernel::findings(host);
    findings.extend(sockets::findings(host));
    findings
}

fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

fn render(findings: &[Finding]) -> String {
    let names = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Finding { state, name, found, wanted, effect, fix } in findings {
        let _ = writeln!(out, "{:<4}  {name:<names$}  {found}  (wanted: {wanted})", word(*state));
        let indent = " ".repeat(6 + names);
        if !effect.is_empty() {
            let _ = writeln!(out, "{indent}  effect: {effect}");
        }
        if !fix.is_empty() {
            let _ = writeln!(out, "{indent}  fix:    {fix}");
        }
    }
    let _ = writeln!(out, "\n{}", summary(findings));
    out
}

/// "This host can run: io_uring yes, …; 3 warnings."
fn summary(findings: &[Finding]) -> String {
    let works = |name: &str| match findings.iter().find(|finding| finding.name == name) {
        None => "unknown",
        Some(Finding { found, .. }) if found.starts_with("granted in part") => "in part",
        Some(Finding { state: State::Ok, .. }) => "yes",
        Some(_) => "no",
    };
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let verdict = match (count(State::Fail), count(State::Warn)) {
        (0, 0) => "nothing to mend".to_owned(),
        (0, warnings) => format!("{warnings} to look at"),
        (failures, warnings) => format!("{failures} to mend, {warnings} to look at"),
    };
    format!(
        "this host can run: io_uring {}, eBPF steering {}, kTLS {}, low ports {}; {verdict}",
        works("io_uring"),
        works("bpf capabilities"),
        works("ktls"),
        works("low ports"),
    )
}

fn to_json(findings: &[Finding]) -> Value {
    let lines = findings.iter().map(|Finding { state, name, found, wanted, effect, fix }| {
        json!({ "state": word(*state), "name": name, "found": found, "wanted": wanted, "effect": effect, "fix": fix })
    });
    json!({ "state": word(worst(findings)), "summary": summary(findings), "findings": lines.collect::<Vec<_>>() })
}

const fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host of the given files.
    fn host(files: &[(&str, &str)]) -> Host {
        Host::of(files)
    }

    const GOOD: &[(&str, &str)] = &[
        ("proc/sys/kernel/osrelease", "6.12.0"),
        ("proc/sys/kernel/io_uring_disabled", "0"),
        ("proc/self/status", "CapEff:\t000001ffffffffff\nSeccomp:\t0\n"),
        ("proc/sys/kernel/unprivileged_bpf_disabled", "2"),
        ("proc/sys/net/core/bpf_jit_enable", "1"),
        ("sys/kernel/btf/vmlinux", ""),
        ("proc/self/mountinfo", "34 25 0:30 / /sys/fs/bpf rw shared:7 - bpf bpf rw\n"),
        (
            "proc/self/limits",
            "Max open files            1048576              1048576              files\nMax locked memory         unlimited            unlimited            bytes\n",
        ),
        ("proc/sys/net/core/somaxconn", "4096"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "8192"),
        ("proc/sys/net/ipv4/tcp_syncookies", "1"),
        ("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535"),
        ("proc/sys/net/ipv4/tcp_migrate_req", "1"),
        ("proc/sys/net/core/rmem_max", "8388608"),
        ("proc/sys/net/core/wmem_max", "8388608"),
        ("proc/sys/net/ipv4/tcp_congestion_control", "bbr"),
        ("proc/sys/net/ipv4/tcp_available_congestion_control", "reno bbr cubic"),
        ("proc/sys/net/ipv4/tcp_available_ulp", "espintcp mptcp tls"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
        ("sys/devices/system/cpu/online", "0-3"),
        ("sys/fs/cgroup/cpu.max", "max 100000"),
    ];

    fn state(findings: &[Finding], name: &str) -> State {
        findings.iter().find(|finding| finding.name == name).unwrap_or_else(|| panic!("no line {name}")).state
    }

    #[test]
    fn a_good_host_has_nothing_to_mend() {
        let findings = examine(&host(GOOD));
        let bad: Vec<_> = findings.iter().filter(|finding| finding.state != State::Ok).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        assert!(render(&findings).ends_with(
            "this host can run: io_uring yes, eBPF steering yes, kTLS yes, low ports yes; nothing to mend\n"
        ));
    }

    /// A file made worse, and the line that must say so.
    const LACKS: &[(&str, &str, &str, State)] = &[
        ("proc/sys/kernel/osrelease", "5.4.0-generic", "kernel", State::Fail),
        ("proc/sys/kernel/osrelease", "5.15.0", "kernel", State::Warn),
        ("proc/self/status", "CapEff:\t0000000000000000\nSeccomp:\t2\n", "bpf capabilities", State::Warn),
        ("proc/self/status", "CapEff:\t0000000000000000\nSeccomp:\t2\n", "low ports", State::Warn),
        ("proc/sys/net/core/bpf_jit_enable", "0", "bpf jit", State::Warn),
        ("proc/self/mountinfo", "", "bpffs", State::Warn),
        (
            "proc/self/limits",
            "Max open files            1024              4096              files\n",
            "open files",
            State::Warn,
        ),
        ("proc/sys/net/core/somaxconn", "128", "somaxconn", State::Warn),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "128", "tcp_max_syn_backlog", State::Warn),
        ("proc/sys/net/ipv4/tcp_syncookies", "0", "tcp_syncookies", State::Warn),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999", "local ports", State::Warn),
        ("proc/sys/net/ipv4/tcp_migrate_req", "0", "tcp_migrate_req", State::Warn),
        ("proc/sys/net/core/rmem_max", "212992", "rmem_max", State::Warn),
        ("proc/sys/net/core/wmem_max", "212992", "wmem_max", State::Warn),
        ("proc/sys/net/ipv4/tcp_available_ulp", "mptcp", "ktls", State::Warn),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clock source", State::Warn),
        ("sys/fs/cgroup/cpu.max", "50000 100000", "cpu limit", State::Warn),
    ];

    #[test]
    fn each_lack_is_found_and_has_an_effect_and_a_fix() {
        for &(file, content, name, wanted) in LACKS {
            let files: Vec<_> =
                GOOD.iter().filter(|&&(path, _)| path != file).copied().chain([(file, content)]).collect();
            let findings = examine(&host(&files));
            assert_eq!(state(&findings, name), wanted, "{name} with {content:?}");
            for finding in findings.iter().filter(|finding| finding.state != State::Ok) {
                assert!(!finding.effect.is_empty() && !finding.fix.is_empty(), "{finding:?}");
            }
        }
    }

    #[test]
    fn a_ring_refused_is_told_with_who_refuses_it() {
        for (file, content, fix) in [
            ("proc/sys/kernel/io_uring_disabled", "2", "kernel.io_uring_disabled=0"),
            ("proc/sys/kernel/io_uring_disabled", "1", "kernel.io_uring_group"),
            ("proc/self/status", "CapEff:\t0\nSeccomp:\t2\n", "seccomp=PROFILE"),
            ("proc/self/status", "CapEff:\t0\nSeccomp:\t0\n", "CONFIG_IO_URING"),
        ] {
            let files: Vec<_> =
                GOOD.iter().filter(|&&(path, _)| path != file).copied().chain([(file, content)]).collect();
            let mut host = host(&files);
            host.ring = Err("Operation not permitted (os error 1)".into());
            let findings = examine(&host);
            let line = findings.iter().find(|finding| finding.name == "io_uring").unwrap();
            assert_eq!((line.state, &*line.found), (State::Warn, "refused: Operation not permitted (os error 1)"));
            assert!(line.effect.contains("epoll") && line.fix.contains(fix), "{line:?}");
            assert!(summary(&findings).contains("io_uring no"));
            assert_eq!(state(&findings, "seccomp") == State::Warn, content.ends_with("2\n"), "{content:?}");
        }
    }

    #[test]
    fn each_feature_of_the_ring_is_a_line() {
        let mut host = host(GOOD);
        let why = "PBUF_RING_INC (Invalid argument (os error 22)): idle connections are polled and read when readable";
        host.ring = Ok(host::granted(&["DEFER_TASKRUN", "NO_SQARRAY"], &[why]));
        let findings = examine(&host);
        assert_eq!(state(&findings, "io_uring"), State::Ok);
        assert_eq!(state(&findings, "DEFER_TASKRUN"), State::Ok);
        assert_eq!(state(&findings, "NO_IOWAIT"), State::Warn);
        let line = findings.iter().find(|finding| finding.name == "PBUF_RING_INC").unwrap();
        assert_eq!((line.state, &*line.found), (State::Warn, &*format!("refused: {why}")));
        assert!(!line.effect.is_empty() && !line.fix.is_empty());
        assert!(summary(&findings).contains("io_uring in part"));
    }

    #[test]
    fn a_host_without_any_file_is_examined_all_the_same() {
        let findings = examine(&host(&[]));
        assert!(render(&findings).contains("unknown"));
        assert!(to_json(&findings)["findings"].as_array().is_some_and(|lines| lines.len() > 15));
    }

    #[test]
    fn this_host_is_examined() {
        let findings = examine(&Host::this());
        assert!(render(&findings).lines().count() > findings.len());
    }

    #[test]
    fn a_line_reads_as_a_line() {
        let finding = Finding::judge(false, State::Warn, "somaxconn", "128", "≥ 4096")
            .costs("bursts of connections are refused", sysctl("net.core.somaxconn=4096"));
        let wanted = "\
warn  somaxconn  128  (wanted: ≥ 4096)
                 effect: bursts of connections are refused
                 fix:    sysctl -w 'net.core.somaxconn=4096'  (to keep: echo 'net.core.somaxconn=4096' >> /etc/sysctl.d/90-penstock.conf)
";
        assert!(render(&[finding]).starts_with(wanted));
    }
}
