//! Descriptors, queues, ports and buffers of sockets.

use super::{Finding, State, host::Host, sysctl};
use crate::limits;

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = vec![open_files(host), locked_memory(host)];
    findings.extend(numbers(host));
    findings.extend([syn_cookies(host), local_ports(host), migrate(host)]);
    findings.extend([congestion_control(host), ktls(host)]);
    findings
}

fn open_files(host: &Host) -> Finding {
    // A connection through us is two descriptors.
    const WANTED: u64 = 2 * limits::CONNECTIONS_DEFAULT as u64 + limits::DESCRIPTORS_RESERVED as u64;
    const _: () = assert!(WANTED == 40_256);
    let limit = host.limit("Max open files");
    let found =
        limit.map_or_else(|| "unknown".into(), |(soft, hard)| format!("{} (hard {})", shown(soft), shown(hard)));
    // The soft limit is raised to the hard one at start.
    Finding::judge(
        limit.is_none_or(|(_, hard)| hard >= WANTED),
        State::Warn,
        "open files",
        found,
        "hard limit ≥ 40256: two a connection",
    )
    .costs(
        "fewer connections than a listener's default of 20000",
        "systemd: LimitNOFILE=1048576; shell: ulimit -Hn 1048576; docker: --ulimit nofile=1048576",
    )
}

fn locked_memory(host: &Host) -> Finding {
    // Rings are charged to the control group since 5.12; the buffer rings that are registered, to this limit: 1 MiB a core.
    let wanted = host.allowed.len().max(1) as u64 * (1 << 20);
    let limit = host.limit("Max locked memory");
    let found = limit.map_or_else(
        || "unknown".into(),
        |(soft, _)| {
            if soft == u64::MAX { "unlimited".into() } else { format!("{} KiB", soft >> 10) }
        },
    );
    Finding::judge(limit.is_none_or(|(soft, _)| soft >= wanted), State::Warn, "locked memory", found, "1 MiB a worker")
        .costs(
            "registered buffers may be refused: receives are copied once more",
            "systemd: LimitMEMLOCK=infinity; shell: ulimit -l unlimited",
        )
}

/// Settings that are a number, and want to be at least another.
fn numbers(host: &Host) -> impl Iterator<Item = Finding> {
    const BUFFERS: &str = "≥ 7340032: what QUIC needs at 1 Gbit/s";
    const NUMBERS: [(&str, &str, u64, &str, &str); 4] = [
        (
            "somaxconn",
            "net.core.somaxconn",
            4096,
            "≥ 4096",
            "bursts of connections beyond it are dropped, and come back after a second",
        ),
        (
            "tcp_max_syn_backlog",
            "net.ipv4.tcp_max_syn_backlog",
            2048,
            "≥ 2048",
            "a burst of half-open connections is answered with cookies, which lose TCP options",
        ),
        ("rmem_max", "net.core.rmem_max", 7 << 20, BUFFERS, "datagrams are lost when a worker is busy for a moment"),
        ("wmem_max", "net.core.wmem_max", 7 << 20, BUFFERS, "sending datagrams stalls sooner"),
    ];
    NUMBERS
        .map(|(name, setting, least, wanted, effect)| {
            let value = host.number(&format!("proc/sys/{}", setting.replace('.', "/")));
            let found = value.map_or_else(|| "unknown".into(), |value| value.to_string());
            Finding::judge(value.is_none_or(|value| value >= least), State::Warn, name, found, wanted)
                .costs(effect, sysctl(&format!("{setting}={least}")))
        })
        .into_iter()
}

fn syn_cookies(host: &Host) -> Finding {
    let value = host.number("proc/sys/net/ipv4/tcp_syncookies");
    let found = value.map_or_else(|| "unknown".into(), |value| value.to_string());
    Finding::judge(value != Some(0), State::Warn, "tcp_syncookies", found, "1: when the backlog is full")
        .costs("a flood of SYNs keeps everybody else out", sysctl("net.ipv4.tcp_syncookies=1"))
}

fn local_ports(host: &Host) -> Finding {
    let range = host.text("proc/sys/net/ipv4/ip_local_port_range").and_then(|text| {
        let mut words = text.split_ascii_whitespace().map(str::parse::<u32>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    let found = range.map_or_else(|| "unknown".into(), |(first, last)| format!("{first}–{last}"));
    Finding::judge(
        range.is_none_or(|(first, last)| last.saturating_sub(first) >= 50_000),
        State::Warn,
        "local ports",
        found,
        "50000 or more",
    )
    .costs(
        "connections to one endpoint at one time are limited to that many",
        sysctl("net.ipv4.ip_local_port_range=10240 65535"),
    )
}

fn migrate(host: &Host) -> Finding {
    let value = host.number("proc/sys/net/ipv4/tcp_migrate_req");
    let found = value.map_or_else(|| "unknown".into(), |value| value.to_string());
    Finding::judge(value.is_none_or(|value| value == 1), State::Warn, "tcp_migrate_req", found, "1").costs(
        "connections waiting at a worker's socket are reset when that worker stops",
        sysctl("net.ipv4.tcp_migrate_req=1"),
    )
}

fn congestion_control(host: &Host) -> Finding {
    let current = host.text("proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_else(|| "unknown".into());
    let available = host.text("proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    let found = format!("{current} (available: {})", if available.is_empty() { "unknown" } else { &available });
    let good = available.is_empty() || available.split(' ').any(|name| name == "bbr");
    Finding::judge(good, State::Warn, "congestion control", found, "bbr available")
        .costs("loss on long paths costs more throughput than it must", "modprobe tcp_bbr")
}

fn ktls(host: &Host) -> Finding {
    let protocols = host.text("proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    let good = protocols.split(' ').any(|name| name == "tls");
    let found = if protocols.is_empty() { "unknown" } else { &protocols };
    Finding::judge(good, State::Warn, "ktls", found, "tls among the upper-layer protocols").costs(
        "records would be encrypted in user space: one more pass over each byte of TLS",
        "modprobe tls (needs CONFIG_TLS)",
    )
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".into() } else { limit.to_string() }
}
