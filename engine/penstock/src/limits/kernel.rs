//! Bounds of what programs in the kernel hold, and of what is told to them.

use std::time::Duration;

// ── The shield ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Networks on the lists, for each family: what public lists of abusers have (20,000 to 60,000), twice. 72 bytes each in the kernel, when they are there.
pub const SHIELD_NETWORKS_MAX: u32 = 1 << 17;

/// Sources whose buckets are remembered, 88 bytes each: 6 MiB. A source that has been pushed out begins with full buckets.
pub const SHIELD_SOURCES: u32 = 1 << 16;

/// Sources that are denied for a while because they do not heed their limits; those beyond stay the engine's to turn away.
pub const SHIELD_DENIED_MAX: u32 = 1 << 14;

/// Samples of dropped packets that are kept for who asks: those of four seconds. Who asks less often misses some.
pub const TAP_KEPT: usize = 4_096;

/// Samples in an answer: what is more comes with the next one.
pub const TAP_ANSWER_MAX: usize = 512;

/// How long samples are taken after somebody has asked for them: `penstock tap` asks five times a second.
pub const TAP_LASTS: Duration = Duration::from_secs(3);

/// The most packets of which one may be sampled.
pub const TAP_ONE_IN_MAX: u32 = 1_000_000;

/// Bytes of a file of denied networks: [`SHIELD_NETWORKS_MAX`] lines with a comment each.
pub const SHIELD_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Clients that go on though they are turned away, on their way to the shield: it takes them twenty times a second.
pub const OVERRUN_TOLD_MAX: usize = 256;

// ── The same-host shortcut ──────────────────────────────────────────────────────────────────────────────────────────

/// Bytes that an end sends by the shortcut until the other one has spoken: what waits unread is in no socket's account, so it must be little. Most
/// messages are less, and what is more goes by TCP from there on.
pub const SAME_HOST_BUDGET: u32 = 64 * 1024;

/// Bytes of a request, as it came, that may go by the shortcut: half of the budget, because fields may be added. An endpoint that asks the kernel
/// how much there is to read (`FIONREAD`) would not hear of what is beyond the budget.
pub const SAME_HOST_REQUEST_MAX: u64 = 32 * 1024;

/// Bytes of an answer from which on it counts as large: three quarters of the budget, because fields are not counted.
pub const SAME_HOST_ANSWER_LARGE: u64 = 48 * 1024;

/// Connections that take the shortcut at a time; others are plain. The kernel keeps 300 bytes for each, when they are there.
pub const SAME_HOST_CONNECTIONS_MAX: u32 = 1 << 15;

/// How long a step of the shortcut's trial at the start may take: it is microseconds, on a host that has stalled a second.
pub const SAME_HOST_TRIAL_STEP: Duration = Duration::from_secs(2);

// ── The balancer ────────────────────────────────────────────────────────────────────────────────────────────────────

/// VIPs: what Katran has. Each has two tables, 258 KiB in the kernel.
pub const VIPS_MAX: usize = 512;

/// Addresses of all VIPs together: flows whose addresses are rewritten name theirs by two octets.
pub const VIP_ADDRESSES_MAX: usize = 1 << 14;

/// Endpoints of all VIPs: the places that slots name, of which the last stands for nobody.
pub const VIP_ENDPOINTS_MAX: u32 = 1 << 13;

/// Flows that the balancer remembers of each family, 16 and 32 bytes each: 12 MB. One that has been pushed out has the slot of its hash, which is mostly the same
/// endpoint.
pub const VIP_FLOWS: u32 = 1 << 18;

/// Addresses that the balancer rewrites packets to come from: half a million flows of a family and protocol, each address 1 MiB for either.
pub const NAT_ADDRESSES_MAX: usize = 16;

/// Octets that an outer header may have: IPv6's and UDP's.
pub const OUTER_OCTETS_MAX: usize = 48;

/// How often the balancer is told who serves, when that changes: a table is built in a few milliseconds.
pub const VIPS_FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Paths whose next hop a worker remembers for answers past the kernel: twice as many at the most, and less than 8 MiB. What is forgotten goes by the kernel.
pub const AFXDP_PATHS_HALF: usize = 1 << 15;

/// Addresses and ports of listeners whose datagrams are taken past the kernel; further ones are the kernel's. As many as sixteen listeners on a host with 64 addresses.
pub const AFXDP_DOORS_MAX: usize = 1_024;
