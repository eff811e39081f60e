//! The set-up ladder: the best ring that this kernel grants, and what it would not.

use std::io;

use io_uring::{IoUring, opcode, types};

use super::bufring::{BufRing, GROUP};
use crate::driver::Granted;

/// Submission slots. One turn of a busy worker submits a few hundred requests; more are handed over in between.
const SUBMISSIONS: u32 = 1024;
/// Completion slots: multishot receives of all connections may complete in one turn without overflow.
const COMPLETIONS: u32 = 16_384;

pub(super) struct Parts {
    pub(super) ring: IoUring,
    pub(super) buffers: Option<BufRing>,
    pub(super) no_iowait: bool,
    pub(super) taskrun_flag: bool,
    pub(super) granted: Granted,
}

/// Sets up a ring on this thread, which alone may use it.
pub(super) fn climb() -> io::Result<Parts> {
    let mut granted = Granted { driver: "uring", ..Granted::default() };
    let (ring, rung) = first_granted(&mut granted)?;
    granted.features.extend(rung.features);
    let no_iowait = ring.params().is_feature_no_iowait();
    if no_iowait {
        granted.features.push("NO_IOWAIT");
    }
    let mut parts = Parts { ring, buffers: None, no_iowait, taskrun_flag: rung.taskrun_flag, granted };
    match incremental_buffers(&mut parts.ring) {
        Ok(buffers) => {
            parts.buffers = Some(buffers);
            parts.granted.features.extend(["MULTISHOT_RECV", "PBUF_RING_INC"]);
        }
        Err(why) => parts
            .granted
            .missing
            .push(format!("PBUF_RING_INC ({why}): idle connections are polled and read when readable")),
    }
    parts.granted.features.push("MULTISHOT_ACCEPT");
    Ok(parts)
}

struct Rung {
    features: &'static [&'static str],
    taskrun_flag: bool,
    defer: bool,
    no_sqarray: bool,
    coop: bool,
}

/// Best first. 6.6 has NO_SQARRAY, 6.1 DEFER_TASKRUN, 5.19 COOP_TASKRUN.
const LADDER: [Rung; 4] = [
    Rung {
        features: &["SINGLE_ISSUER", "DEFER_TASKRUN", "COOP_TASKRUN", "NO_SQARRAY"],
        taskrun_flag: true,
        defer: true,
        no_sqarray: true,
        coop: true,
    },
    Rung {
        features: &["SINGLE_ISSUER", "DEFER_TASKRUN", "COOP_TASKRUN"],
        taskrun_flag: true,
        defer: true,
        no_sqarray: false,
        coop: true,
    },
    Rung { features: &["COOP_TASKRUN"], taskrun_flag: true, defer: false, no_sqarray: false, coop: true },
    Rung { features: &[], taskrun_flag: false, defer: false, no_sqarray: false, coop: false },
];

fn first_granted(granted: &mut Granted) -> io::Result<(IoUring, &'static Rung)> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for rung in &LADDER {
        let mut builder = IoUring::builder();
        builder.setup_submit_all().setup_clamp().setup_cqsize(COMPLETIONS).dontfork();
        if rung.coop {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }
        if rung.defer {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if rung.no_sqarray {
            builder.setup_no_sqarray();
        }
        match builder.build(SUBMISSIONS) {
            Ok(ring) => return Ok((ring, rung)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                granted.missing.push(format!("{} (refused by this kernel)", rung.features.join("+")));
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Registers the incremental buffer ring and tries it: what goes into a socket pair must come out of a multishot
/// receive, byte for byte, over more than one buffer.
fn incremental_buffers(ring: &mut IoUring) -> io::Result<BufRing> {
    let mut buffers = BufRing::register(ring)?;
    match self_test(ring, &mut buffers) {
        Ok(()) => Ok(buffers),
        Err(error) => {
            let _ = ring.submitter().unregister_buf_ring(GROUP);
            Err(error)
        }
    }
}

fn self_test(ring: &mut IoUring, buffers: &mut BufRing) -> io::Result<()> {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    let (mut near, far) = std::os::unix::net::UnixStream::pair()?;
    let receive = opcode::RecvMulti::new(types::Fd(far.as_raw_fd()), GROUP).build().user_data(1);
    // SAFETY: a multishot receive touches only the registered buffers, and `far` outlives it: it ends below.
    unsafe { ring.submission().push(&receive) }.map_err(|_| io::Error::other("submission queue full at start"))?;
    let sent: Vec<u8> = (0..150_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut got = Vec::new();
    for piece in sent.chunks(10_000) {
        near.write_all(piece)?;
        let wanted = got.len() + piece.len();
        while got.len() < wanted {
            ring.submit_and_wait(1)?;
            let ended = reap_test(ring, buffers, &mut got)?;
            if ended && got.len() < wanted {
                return Err(io::Error::other("a multishot receive ended early in the self-test"));
            }
        }
    }
    drop(near);
    while !{
        ring.submit_and_wait(1)?;
        reap_test(ring, buffers, &mut got)?
    } {}
    if got == sent { Ok(()) } else { Err(io::Error::other("the self-test's bytes came out changed")) }
}

/// Appends what arrived; true when the receive is over.
fn reap_test(ring: &mut IoUring, buffers: &mut BufRing, got: &mut Vec<u8>) -> io::Result<bool> {
    let mut ended = false;
    for completion in ring.completion() {
        if completion.result() < 0 {
            return Err(io::Error::from_raw_os_error(-completion.result()));
        }
        let count = completion.result() as usize;
        got.extend_from_slice(buffers.bytes(completion.flags(), count));
        buffers.release(completion.flags(), count);
        ended |= !io_uring::cqueue::more(completion.flags());
    }
    Ok(ended)
}
