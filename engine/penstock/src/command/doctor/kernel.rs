//! The kernel, its rings, its BPF, and the CPUs.

use super::{Finding, State, host::Host, sysctl};
use crate::balance::Kind as Balance;
use crate::steer::Kind;

/// Oldest kernel on which anything of ours is tested: epoll alone, without the ring.
const KERNEL_MIN: (u32, u32) = (5, 10);
/// The ring as we drive it: DEFER_TASKRUN (6.1).
const KERNEL_RING: (u32, u32) = (6, 1);

/// Capabilities that we have a use for (`linux/capability.h`), with the use.
const CAPABILITIES: &[(u32, &str)] = &[
    (10, "CAP_NET_BIND_SERVICE"),
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
    (23, "CAP_SYS_NICE"),
    (24, "CAP_SYS_RESOURCE"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// What the ring is asked for beyond being there: name, since which kernel, and what its lack costs.
const RING_FEATURES: &[(&str, &str, &str)] = &[
    ("DEFER_TASKRUN", "granted: Linux ≥ 6.1", "completions interrupt the worker instead of waiting for its turn"),
    ("NO_SQARRAY", "granted: Linux ≥ 6.6", "each submission passes through an index array: one more cache line"),
    (
        "PBUF_RING_INC",
        "granted: Linux ≥ 6.12",
        "heads and small messages are polled for and then read: one more system call a receive",
    ),
    ("NO_IOWAIT", "granted: Linux ≥ 6.15", "an idle worker counts as waiting for a disk: load figures mislead"),
];

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = vec![kernel(host), io_uring(host)];
    findings.extend(ring_features(host));
    findings.push(seccomp(host));
    findings.extend(capabilities(host));
    findings.extend(bpf(host));
    findings.extend(programs(host));
    findings.push(shield(host));
    findings.push(lookup(host));
    findings.push(same_host(host));
    findings.extend(balance(host));
    findings.push(afxdp(host));
    findings.push(interfaces(host));
    findings.extend([cpus(host), cpu_limit(host), clock(host)]);
    findings
}

fn kernel(host: &Host) -> Finding {
    let release = host.text("proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into());
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let otherwise = if version < KERNEL_MIN { State::Fail } else { State::Warn };
    Finding::judge(version >= KERNEL_RING, otherwise, "kernel", release, "≥ 6.1, best ≥ 6.12").costs(
        "the ring lacks modes that we rely on: DEFER_TASKRUN before 6.1, multishot accept before 5.19",
        "install a newer kernel; every current distribution has 6.1 or newer. Until then: driver = \"epoll\"",
    )
}

/// Whether this process gets a ring, found out by setting one up.
fn io_uring(host: &Host) -> Finding {
    let found = match &host.ring {
        Ok(granted) if granted.missing.is_empty() => format!("granted: {}", granted.features.join(" ")),
        Ok(granted) => format!("granted in part: {}", granted.features.join(" ")),
        Err(why) => format!("refused: {why}"),
    };
    Finding::judge(host.ring.is_ok(), State::Warn, "io_uring", found, "granted")
        .costs("the engine runs on epoll, at more system calls a request", who_refuses(host))
}

/// The fix follows from who says no: the kernel's switch, a seccomp filter, or the kernel itself.
fn who_refuses(host: &Host) -> String {
    // The switch came with 6.6.
    match host.number("proc/sys/kernel/io_uring_disabled") {
        Some(1) => format!(
            "hold CAP_SYS_ADMIN, or be in the group of kernel.io_uring_group; else: {}",
            sysctl("kernel.io_uring_disabled=0")
        ),
        Some(2..) => sysctl("kernel.io_uring_disabled=0"),
        _ if host.status("Seccomp").is_some_and(|mode| mode != "0") => ALLOW_IN_SECCOMP.to_owned(),
        _ => "boot a kernel built with CONFIG_IO_URING=y".to_owned(),
    }
}

/// A line for each feature, where there is a ring to have them.
fn ring_features(host: &Host) -> Vec<Finding> {
    let Ok(granted) = &host.ring else { return Vec::new() };
    let line = |&(name, wanted, effect): &(&'static str, &'static str, &'static str)| {
        let has = granted.features.contains(&name);
        let refusal = || granted.missing.iter().find(|missing| missing.contains(name));
        let found = if has {
            "granted".to_owned()
        } else {
            refusal().map_or_else(|| "not offered".to_owned(), |why| format!("refused: {why}"))
        };
        Finding::judge(has, State::Warn, name, found, wanted)
            .costs(effect, "boot a newer kernel; nothing else grants it")
    };
    RING_FEATURES.iter().map(line).collect()
}

const ALLOW_IN_SECCOMP: &str =
    "docker run --security-opt seccomp=PROFILE with io_uring_setup, io_uring_enter and io_uring_register allowed";

fn seccomp(host: &Host) -> Finding {
    let mode = host.status("Seccomp");
    let found = match (mode.as_deref(), &host.ring) {
        (Some("0"), _) => "none",
        (Some("2"), Ok(_)) => "a filter that allows io_uring",
        (Some("2"), Err(_)) => "a filter",
        (Some(_), _) => "strict",
        (None, _) => "unknown",
    };
    Finding::judge(
        !matches!(found, "a filter" | "strict"),
        State::Warn,
        "seccomp",
        found,
        "none, or one that allows io_uring",
    )
    .costs("container profiles refuse io_uring by default; then the engine runs on epoll", ALLOW_IN_SECCOMP)
}

fn capabilities(host: &Host) -> Vec<Finding> {
    let mask = host.status("CapEff").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0);
    let has = |name: &str| CAPABILITIES.iter().any(|(bit, known)| *known == name && mask >> bit & 1 == 1);
    let held: Vec<_> = CAPABILITIES.iter().filter(|(_, name)| has(name)).map(|(_, name)| *name).collect();
    let listed = |held: Vec<&str>| {
        if held.is_empty() { "none".to_owned() } else { held.join(" ") }
    };
    let bpf = has("CAP_SYS_ADMIN") || has("CAP_BPF") && has("CAP_NET_ADMIN");
    let low_ports_from = host.number("proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    vec![
        Finding::judge(true, State::Ok, "capabilities", listed(held.clone()), "those below"),
        Finding::judge(bpf, State::Warn, "bpf capabilities", if bpf { "held" } else { "not held" }, "CAP_BPF and CAP_NET_ADMIN")
            .costs("connections are spread by the kernel's hash and not by load; nothing is dropped before it costs", "systemd: AmbientCapabilities=CAP_BPF CAP_NET_ADMIN; else: setcap cap_bpf,cap_net_admin+ep $(which penstock)"),
        Finding::judge(has("CAP_NET_BIND_SERVICE") || low_ports_from <= 80, State::Warn, "low ports", format!("from {}", if has("CAP_NET_BIND_SERVICE") { 1 } else { low_ports_from }), "80 and 443")
            .costs("listening at a port below 1024 is refused", "systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; else: sysctl -w net.ipv4.ip_unprivileged_port_start=80"),
        Finding::judge(has("CAP_SYS_NICE"), State::Warn, "priority", if has("CAP_SYS_NICE") { "may be raised" } else { "as started" }, "CAP_SYS_NICE")
            .costs("workers compete with other processes as equals", "systemd: AmbientCapabilities=CAP_SYS_NICE"),
    ]
}

fn bpf(host: &Host) -> Vec<Finding> {
    let unprivileged = host.number("proc/sys/kernel/unprivileged_bpf_disabled");
    let jit = host.number("proc/sys/net/core/bpf_jit_enable");
    let btf = host.exists("sys/kernel/btf/vmlinux");
    let mounts = host.text("proc/self/mountinfo").unwrap_or_default();
    let bpffs = mounts.lines().any(|line| line.split(" - ").nth(1).is_some_and(|kind| kind.starts_with("bpf ")));
    vec![
        // Off for the unprivileged is right: our programs are loaded with the capability.
        Finding::judge(
            unprivileged != Some(0),
            State::Warn,
            "unprivileged bpf",
            unprivileged.map_or_else(
                || "unknown".into(),
                |value| {
                    if value == 0 { "allowed".into() } else { "refused".to_owned() }
                },
            ),
            "refused",
        )
        .costs(
            "any user may load programs: no loss for us, a risk for the host",
            sysctl("kernel.unprivileged_bpf_disabled=2"),
        ),
        Finding::judge(
            jit.is_some_and(|jit| jit > 0),
            State::Warn,
            "bpf jit",
            jit.map_or_else(
                || "unknown".into(),
                |jit| {
                    if jit > 0 { "on".into() } else { "off".to_owned() }
                },
            ),
            "on",
        )
        .costs("programs are interpreted, several times slower", sysctl("net.core.bpf_jit_enable=1")),
        Finding::judge(
            btf,
            State::Warn,
            "btf",
            if btf { "/sys/kernel/btf/vmlinux" } else { "missing" },
            "/sys/kernel/btf/vmlinux",
        )
        .costs(
            "programs that read kernel structures cannot be fitted to this kernel",
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
        Finding::judge(bpffs, State::Warn, "bpffs", if bpffs { "mounted" } else { "not mounted" }, "mounted")
            .costs("maps cannot be pinned: they do not outlive a restart", "mount -t bpf bpf /sys/fs/bpf"),
    ]
}

/// A line for each program, found out by loading it.
fn programs(host: &Host) -> Vec<Finding> {
    let line = |(kind, loaded): &(Kind, Result<(), String>)| {
        let (name, effect) = match kind {
            Kind::Connections => {
                ("bpf steering", "connections go by the kernel's hash, and workers hand over what is too much for one")
            }
            Kind::Datagrams => {
                ("bpf quic steering", "datagrams of connections that moved are forwarded from worker to worker")
            }
        };
        let found = loaded.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "loads".to_owned());
        Finding::judge(loaded.is_ok(), State::Warn, name, found, "loads")
            .costs(effect, "hold CAP_BPF and CAP_NET_ADMIN; boot a kernel with CONFIG_BPF_SYSCALL=y, 5.14 or newer")
    };
    host.programs.iter().map(line).collect()
}

fn shield(host: &Host) -> Finding {
    let found = host.shield.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "loads".to_owned());
    Finding::judge(host.shield.is_ok(), State::Warn, "bpf shield", found, "loads").costs(
        "[shield] drops nothing: floods are the sockets' to bear",
        "hold CAP_BPF and CAP_NET_ADMIN; boot a kernel with CONFIG_BPF_SYSCALL=y, 5.18 or newer",
    )
}

fn lookup(host: &Host) -> Finding {
    let found = host.lookup.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "loads".to_owned());
    Finding::judge(host.lookup.is_ok(), State::Warn, "bpf lookup", found, "loads").costs(
        "listeners get nothing of what stands in `also`",
        "hold CAP_BPF and CAP_NET_ADMIN; boot a kernel with CONFIG_BPF_SYSCALL=y, 5.9 or newer",
    )
}

fn same_host(host: &Host) -> Finding {
    let found =
        host.same_host.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "passes its trial".to_owned());
    Finding::judge(host.same_host.is_ok(), State::Warn, "bpf same host", found, "passes its trial").costs(
        "`same_host` has no effect: endpoints on this host are reached by TCP",
        "hold CAP_BPF and CAP_NET_ADMIN; mount cgroup v2; boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_BPF_STREAM_PARSER=y, 5.15 or newer",
    )
}

fn afxdp(host: &Host) -> Finding {
    let found = host.afxdp.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "granted".to_owned());
    Finding::judge(host.afxdp.is_ok(), State::Warn, "af_xdp", found, "granted").costs(
        "`engine.af_xdp` has no effect: datagrams of HTTP/3 go by the kernel's sockets",
        "hold CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW; boot a kernel with CONFIG_XDP_SOCKETS=y, 5.18 or newer",
    )
}

fn interfaces(host: &Host) -> Finding {
    let found = host.interfaces.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "granted".to_owned());
    Finding::judge(host.interfaces.is_ok(), State::Warn, "xdp side by side", found, "granted").costs(
        "of [shield], [balance] or [decap], and `engine.af_xdp`, an interface has the one that comes first",
        "hold CAP_BPF and CAP_NET_ADMIN; boot a kernel with CONFIG_BPF_SYSCALL=y and a JIT, 5.18 or newer",
    )
}

fn balance(host: &Host) -> Vec<Finding> {
    let line = |(kind, loaded): &(Balance, Result<(), String>)| {
        let (name, effect) = match kind {
            Balance::Balance => ("bpf balance", "[[vip]] sends nothing on: its packets are left to the kernel"),
            Balance::Decap | Balance::Floor => {
                ("bpf decap", "[decap] strips nothing: what balancers have wrapped is left to the kernel")
            }
        };
        let found = loaded.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "loads".to_owned());
        Finding::judge(loaded.is_ok(), State::Warn, name, found, "loads")
            .costs(effect, "hold CAP_BPF and CAP_NET_ADMIN; boot a kernel with CONFIG_BPF_SYSCALL=y, 5.18 or newer")
    };
    host.balance.iter().map(line).collect()
}

fn cpus(host: &Host) -> Finding {
    let online = host.text("sys/devices/system/cpu/online").unwrap_or_else(|| "unknown".into());
    let allowed = host.allowed_list();
    let all = online == allowed || online == "unknown";
    let found = if all { allowed } else { format!("{allowed} of {online}") };
    Finding::judge(all, State::Warn, "cpus", found, "all that are online").costs(
        "workers run on the allowed ones only",
        "taskset, the cpuset cgroup or systemd's CPUAffinity= limits them; widen it if that is not meant",
    )
}

/// The CPU time that the control group grants, in CPUs; version 2, then version 1.
fn cpu_limit(host: &Host) -> Finding {
    let own = host.text("proc/self/cgroup").and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        (!path.is_empty()).then(|| format!("sys/fs/cgroup/{path}/cpu.max"))
    });
    let v2 = own.and_then(|path| host.text(&path)).or_else(|| host.text("sys/fs/cgroup/cpu.max"));
    let quota = match v2 {
        Some(text) => {
            let mut words = text.split_ascii_whitespace();
            words
                .next()
                .and_then(|quota| quota.parse::<f64>().ok())
                .zip(words.next().and_then(|period| period.parse::<f64>().ok()))
        }
        None => {
            let file =
                |name: &str| host.text(&format!("sys/fs/cgroup/cpu/{name}")).and_then(|text| text.parse::<f64>().ok());
            file("cpu.cfs_quota_us").filter(|quota| *quota > 0.0).zip(file("cpu.cfs_period_us"))
        }
    };
    let limit = quota.map(|(quota, period)| quota / period.max(1.0));
    let enough = limit.is_none_or(|limit| limit >= host.allowed.len() as f64);
    Finding::judge(
        enough,
        State::Warn,
        "cpu limit",
        limit.map_or_else(|| "none".into(), |limit| format!("{limit:.2} CPUs")),
        "none, or one for each worker",
    )
    .costs(
        "workers are stopped for the rest of each period once it is used up: latency of tens of milliseconds",
        "give as many CPUs as workers, or start with --cores for as many workers as CPUs",
    )
}

fn clock(host: &Host) -> Finding {
    let source = host
        .text("sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_else(|| "unknown".into());
    let fast =
        ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "unknown"].contains(&source.as_str());
    Finding::judge(fast, State::Warn, "clock source", source, "tsc, or a virtual machine's fast one").costs(
        "reading the time is a system call: about 1 µs instead of 20 ns",
        "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
    )
}
