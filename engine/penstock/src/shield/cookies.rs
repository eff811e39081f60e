//! SYN cookies (RFC 4987 §3.6) that the program answers with: whether they can be, and whether they are.
//!
//! What holds: the pressure is the kernel's to measure. The program asks it at each SYN, and there is a cookie only where a listener's queue is
//! full; so answering begins and ends with that, and here it is only told. A client that brings a cookie is the kernel's to let in, which it
//! does for two minutes after the last one was made.

use std::path::Path;

/// Looks (one a second) without a cookie after which there is no pressure any more.
const CALM: u32 = 5;

/// Whether SYNs find listeners' queues full.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Cookies, as of the last look.
    sent: u64,
    /// As of when it began.
    before: u64,
    /// Looks since the last cookie was seen to be sent; `None` while there is no pressure.
    calm: Option<u32>,
}

impl Pressure {
    #[must_use]
    pub(super) const fn is_high(&self) -> bool {
        self.calm.is_some()
    }

    /// Sees how many cookies have been sent. Tells when that begins, and when it has ended.
    pub(super) fn look(&mut self, sent: u64) -> Option<String> {
        let before = std::mem::replace(&mut self.sent, sent);
        match &mut self.calm {
            None if sent != before => {
                (self.before, self.calm) = (before, Some(0));
                Some("shield: a listener's SYN queue is full: SYNs are answered with cookies".to_owned())
            }
            Some(calm) if sent != before => {
                *calm = 0;
                None
            }
            Some(calm) => {
                *calm += 1;
                (*calm == CALM).then(|| {
                    self.calm = None;
                    format!("shield: SYN queues have room again, after {} cookies", sent - self.before)
                })
            }
            None => None,
        }
    }
}

/// CAP_SYS_ADMIN and CAP_PERFMON, by which the verifier trusts whoever loads a program: it gives up on this one otherwise.
const TRUSTED: u64 = 1 << 21 | 1 << 38;

/// Whether the kernel makes cookies, believes them, and may be given the program that asks for them.
///
/// # Errors
/// A sentence for the operator.
pub(super) fn granted() -> Result<(), String> {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    judge(read("/proc/sys/net/ipv4/tcp_syncookies").as_deref(), read("/proc/self/status").as_deref())
}

fn judge(setting: Option<&str>, status: Option<&str>) -> Result<(), String> {
    let held = status.and_then(|status| status.lines().find_map(|line| line.strip_prefix("CapEff:")));
    let held = held.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    match setting.map(str::trim) {
        None => Err("the kernel has none, which needs CONFIG_SYN_COOKIES=y".to_owned()),
        Some("0") => Err("net.ipv4.tcp_syncookies is 0, and has to be 1".to_owned()),
        Some(_) if held & TRUSTED == 0 => Err("the program that asks for them needs CAP_PERFMON".to_owned()),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_told_when_it_begins_and_when_it_has_ended() {
        let mut pressure = Pressure::default();
        assert_eq!((pressure.look(0), pressure.is_high()), (None, false));
        let begins = pressure.look(100).unwrap();
        assert!(begins.contains("answered with cookies") && pressure.is_high());
        assert_eq!(pressure.look(200), None);
        for _ in 1..CALM {
            assert_eq!((pressure.look(200), pressure.is_high()), (None, true));
        }
        assert_eq!((pressure.look(201), pressure.is_high()), (None, true), "it was not over");
        let told: Vec<_> = (0..20).filter_map(|_| pressure.look(201)).collect();
        assert!(told.len() == 1 && told[0].contains("after 201 cookies"), "{told:?}");
        assert!(!pressure.is_high());
        assert!(pressure.look(202).is_some(), "and again");
    }

    #[test]
    fn cookies_are_the_kernels_to_grant() {
        let (root, perfmon, bpf) =
            ("Name:\tx\nCapEff:\t000001ffffffffff\n", "CapEff:\t000000c000001000\n", "CapEff:\t0000008000001000\n");
        for trusted in [root, perfmon] {
            assert!(judge(Some("1\n"), Some(trusted)).is_ok() && judge(Some("2"), Some(trusted)).is_ok());
        }
        assert!(judge(Some("1\n"), Some(bpf)).unwrap_err().contains("CAP_PERFMON"));
        assert!(judge(Some("0\n"), Some(root)).unwrap_err().contains("has to be 1"));
        assert!(judge(None, Some(root)).unwrap_err().contains("CONFIG_SYN_COOKIES"));
    }
}
