//! Two network namespaces with a cable between them: `door0` at 10.78.0.1 in the inner one, `street0` at 10.78.0.2 in the outer one.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xtask::Outcome;

use crate::process::words;

/// The namespaces, by name; removed when dropped.
pub(crate) struct Spaces {
    pub(crate) inner: String,
    pub(crate) outer: String,
}

impl Spaces {
    pub(crate) fn new(purpose: &str) -> Outcome<Self> {
        let name = |side: &str| format!("penstock-{purpose}-{}-{side}", std::process::id());
        let spaces = Self { inner: name("in"), outer: name("out") };
        let (inner, outer) = (spaces.inner.as_str(), spaces.outer.as_str());
        ip(&["netns", "add", inner])?;
        ip(&["netns", "add", outer])?;
        ip(&["link", "add", "door0", "netns", inner, "type", "veth", "peer", "name", "street0", "netns", outer])?;
        for (space, device, number) in [(inner, "door0", 1), (outer, "street0", 2)] {
            ip(&["-n", space, "link", "set", "lo", "up"])?;
            ip(&["-n", space, "addr", "add", &format!("10.78.0.{number}/24"), "dev", device])?;
            ip(&["-n", space, "link", "set", device, "up"])?;
        }
        Ok(spaces)
    }

    /// Moves this thread into the inner one, with all processes that it starts.
    pub(crate) fn go_in(&self) -> Outcome {
        go(&self.inner)
    }

    /// What happens in the outer one; afterwards this thread is in the inner one.
    pub(crate) fn outside<T>(&self, body: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        go(&self.outer)?;
        let done = body();
        self.go_in()?;
        done
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in [&self.inner, &self.outer] {
            // Never made, or the kernel keeps it: there is nobody to tell.
            let _ = ip(&["netns", "delete", space]);
        }
    }
}

fn go(space: &str) -> Outcome {
    let file = File::open(format!("/run/netns/{space}")).map_err(|error| format!("{space}: {error}"))?;
    let network = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(file.as_fd(), network).map_err(|error| format!("{space}: {error}"))
}

/// A command line in a namespace.
pub(crate) fn within(space: &str, line: &[OsString]) -> Vec<OsString> {
    let mut all = words([&"ip", &"netns", &"exec", &space]);
    all.extend_from_slice(line);
    all
}

pub(crate) fn ip(line: &[&str]) -> Outcome {
    let output = Command::new("ip").args(line).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
