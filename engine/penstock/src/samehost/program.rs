//! The shortcut's programs in the kernel, loaded through aya, and their maps.

use std::fs::File;
use std::path::Path;

use abi::samehost::{Count, Settings};
use aya::maps::{Array, MapData, SockHash};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, SkMsg, SockOps};
use aya::{Ebpf, EbpfLoader};

use crate::bpf::{self, refusal};
use crate::limits;

/// Built by `cargo xtask ebpf` and committed; CI compares it with its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/samehost/samehost.o");

/// The programs, loaded, with their maps. Dropping it lets go of all of them, as the process's end does however that comes; connections that
/// were taken up go on by TCP.
pub struct Program {
    ebpf: Ebpf,
    /// To the control group: a descriptor of ours, with which the attachment ends.
    link: Option<FdLink>,
}

impl Program {
    /// Loads them; they see no connections until they are [attached](Self::attach).
    ///
    /// # Errors
    /// A sentence for the operator: which step was refused, and what that needs.
    pub fn load() -> Result<Self, String> {
        let ends = 2 * limits::SAME_HOST_CONNECTIONS_MAX;
        let mut ebpf = EbpfLoader::new()
            // Nothing in the programs depends on how the kernel lays out its structures.
            .btf(None)
            .map_max_entries("SOCKETS", ends)
            .map_max_entries("ENDS", ends)
            .load(OBJECT)
            .map_err(|error| refusal("maps", &error))?;
        meet(&mut ebpf)?.load().map_err(|error| refusal("program", &error))?;
        let sockets = ebpf.map("SOCKETS").and_then(|map| SockHash::<_, [u32; 12]>::try_from(map).ok());
        let sockets = sockets.ok_or_else(|| "the object has no SOCKETS".to_owned())?;
        let sockets = sockets.fd().try_clone().map_err(|error| refusal("sockets", &error))?;
        let send: &mut SkMsg = bpf::program(&mut ebpf, "send")?;
        send.load().map_err(|error| refusal("program", &error))?;
        send.attach(&sockets).map_err(|error| refusal("sockets", &error))?;
        Ok(Self { ebpf, link: None })
    }

    /// Takes up, from now on, connections that are made within `cgroup` and whose sockets have the priority `token`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn attach(&mut self, cgroup: &Path, token: u32) -> Result<(), String> {
        let settings = Settings { token, budget: limits::SAME_HOST_BUDGET };
        let mut map: Array<&mut MapData, u64> = bpf::map(&mut self.ebpf, "SETTINGS")?;
        map.set(0, settings.word(), 0).map_err(|error| refusal("settings", &error))?;
        let group = File::open(cgroup).map_err(|error| format!("{}: {error}", cgroup.display()))?;
        let meet = meet(&mut self.ebpf)?;
        // A link lets others watch the same group, whatever it is asked.
        let attached = meet.attach(&group, CgroupAttachMode::Single).and_then(|id| meet.take_link(id));
        let link = attached.map_err(|error| refusal(&format!("attaching to {}", cgroup.display()), &error))?;
        // An attachment without a link outlives us, so it is none (before Linux 5.7): dropping it ended it.
        self.link =
            Some(FdLink::try_from(link).map_err(|_| "attaching: no bpf_link, which needs Linux 5.7".to_owned())?);
        Ok(())
    }

    /// What has been counted of something, over all CPUs.
    #[must_use]
    pub fn count(&self, what: Count) -> u64 {
        let [count] = bpf::sum(&self.ebpf, "COUNTS", what as u32);
        count
    }
}

fn meet(ebpf: &mut Ebpf) -> Result<&mut SockOps, String> {
    bpf::program(ebpf, "meet")
}
