//! Programs of XDP on interfaces. An interface has room for one, which is the first, and hands what it lets pass to the next one by a tail call.
//!
//! ```text
//! interface ─► link ─► shield ─► balancer or decapsulator ─► AF_XDP ─► the kernel          (any of them may be missing)
//! ```
//!
//! What holds here: who comes, goes or is replaced does so by one write: to the link where it is the first, and to the map of the one before it elsewhere. Whom it hands on to it
//! has been told before that. So each packet sees the programs as they were or as they are, and no packet sees none. The order is the same everywhere, so nothing leads back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::rc::Rc;

use abi::NEXT_MAX;
use aya::Ebpf;
use aya::maps::{MapData, ProgramArray};
use aya::programs::ProgramFd;
use ring::XdpLink;

use super::{interface_index, refusal};
use crate::snapshot::XdpMode;

/// Where a program stands among those of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// What is dropped must cost nobody else.
    Shield,
    /// What goes elsewhere, or came wrapped from there.
    Balance,
    /// What is for us. Nobody stands behind it.
    Datagrams,
}

/// The programs of all interfaces. Copies are of the same.
#[derive(Clone, Default)]
pub struct Interfaces(Rc<RefCell<BTreeMap<u32, Chain>>>);

/// A program that is to stand on interfaces.
#[derive(Clone, Copy)]
pub struct Comer<'a> {
    pub place: Place,
    /// As in `bpftool prog`.
    pub name: &'static str,
    pub program: &'a ProgramFd,
    /// `None`: it hands nothing on.
    pub next: Option<&'a Next>,
}

/// Whom a program hands packets on to, by the interface's index. The kernel empties the map with its last descriptor.
#[derive(Clone)]
pub struct Next(Rc<RefCell<ProgramArray<MapData>>>);

/// A program on an interface, until this is dropped or another one has taken its place.
pub struct Standing {
    on: Interfaces,
    interface: u32,
    seat: Rc<()>,
    name: Box<str>,
    mode: &'static str,
}

/// Those of one interface.
struct Chain {
    interface: u32,
    name: Box<str>,
    mode: &'static str,
    link: XdpLink,
    /// In their order.
    members: Vec<Member>,
}

struct Member {
    seat: Rc<()>,
    place: Place,
    name: &'static str,
    program: ProgramFd,
    next: Option<Next>,
}

impl Interfaces {
    /// Lets a program see an interface's packets, as far as those before it let them pass, in the place of the one that is there.
    ///
    /// # Errors
    /// A sentence for the operator; nothing has changed.
    pub fn raise(&self, interface: &str, mode: XdpMode, comer: Comer<'_>) -> Result<Standing, String> {
        let index = interface_index(interface)?;
        let member = Member {
            seat: Rc::default(),
            place: comer.place,
            name: comer.name,
            program: comer.program.try_clone().map_err(|error| refusal("program", &error))?,
            next: comer.next.cloned(),
        };
        let (seat, name) = (Rc::clone(&member.seat), Box::from(interface));
        let mut chains = self.0.borrow_mut();
        let mode = match chains.get_mut(&index) {
            Some(chain) => chain.take_in(mode, member)?,
            None => {
                let chain = Chain::begin((index, interface), mode, member)?;
                let mode = chain.mode;
                chains.insert(index, chain);
                mode
            }
        };
        Ok(Standing { on: self.clone(), interface: index, seat, name, mode })
    }

    /// Each interface, how programs stand there, and which, in their order.
    #[must_use]
    pub fn rows(&self) -> Vec<(Box<str>, &'static str, Vec<&'static str>)> {
        let names = |chain: &Chain| chain.members.iter().map(|member| member.name).collect();
        self.0.borrow().values().map(|chain| (chain.name.clone(), chain.mode, names(chain))).collect()
    }

    /// The same for the operator's eye.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line =
            |(name, mode, programs): (_, _, Vec<_>)| format!("XDP on {name} ({mode}): {}", programs.join(", then "));
        self.rows().into_iter().map(line).collect()
    }
}

impl Standing {
    /// The interface, and how programs stand there.
    #[must_use]
    pub fn stands(&self) -> (&str, &'static str) {
        (&self.name, self.mode)
    }
}

/// Has a program stand on the interfaces that are wanted, and on no others. `refused` says where it is not granted.
pub fn stand_on(
    standing: &mut Vec<Standing>,
    wanted: &[Box<str>],
    refused: &mut Vec<String>,
    mut stand: impl FnMut(&str) -> Result<Standing, String>,
) {
    let is = |one: &Standing, name: &str| *one.name == *name;
    standing.retain(|one| wanted.iter().any(|name| is(one, name)));
    for interface in wanted {
        if !standing.iter().any(|one| is(one, interface)) {
            match stand(interface) {
                Ok(one) => standing.push(one),
                Err(why) => refused.push(format!("{interface}: {why}")),
            }
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut chains = self.on.0.borrow_mut();
        let Some(chain) = chains.get_mut(&self.interface) else { return };
        let Some(at) = chain.members.iter().position(|member| Rc::ptr_eq(&member.seat, &self.seat)) else { return };
        if chain.members.len() == 1 {
            // The link ends with it.
            chains.remove(&self.interface);
            return;
        }
        // Refused only where the interface is no more.
        let _ = chain.lead_to(at, chain.members.get(at + 1).map(|member| &member.program));
        let gone = chain.members.remove(at);
        gone.hand_on(self.interface, None).unwrap_or_default();
    }
}

impl Chain {
    /// As the kernel grants it, with one program.
    fn begin((interface, name): (u32, &str), mode: XdpMode, first: Member) -> Result<Self, String> {
        let modes: &[(bool, &str)] = match mode {
            XdpMode::Auto => &[(true, "native"), (false, "generic")],
            XdpMode::Native => &[(true, "native")],
            XdpMode::Generic => &[(false, "generic")],
        };
        first.hand_on(interface, None)?;
        let mut refused = Vec::new();
        for (native, mode) in modes {
            match XdpLink::attach(first.program.as_fd(), interface, *native) {
                Ok(link) => return Ok(Self { interface, name: name.into(), mode, link, members: vec![first] }),
                Err(error) => refused.push(format!("{mode}: {}", refused_link(&error))),
            }
        }
        Err(refused.join("; "))
    }

    /// One more, or another one in somebody's place.
    fn take_in(&mut self, mode: XdpMode, comer: Member) -> Result<&'static str, String> {
        if matches!((mode, self.mode), (XdpMode::Native, "generic") | (XdpMode::Generic, "native")) {
            let names: Vec<_> = self.members.iter().map(|member| member.name).collect();
            return Err(format!("`{}` stands there, and is {}", names.join("`, `"), self.mode));
        }
        let at = self.members.partition_point(|member| member.place < comer.place);
        let after = self.members.iter().find(|member| member.place > comer.place);
        comer.hand_on(self.interface, after.map(|member| &member.program))?;
        self.lead_to(at, Some(&comer.program))?;
        if self.members.get(at).is_some_and(|member| member.place == comer.place) {
            self.members[at] = comer;
        } else {
            self.members.insert(at, comer);
        }
        Ok(self.mode)
    }

    /// What reaches the place `at` goes to this program from now on.
    fn lead_to(&self, at: usize, program: Option<&ProgramFd>) -> Result<(), String> {
        match (at.checked_sub(1).and_then(|before| self.members.get(before)), program) {
            (Some(before), _) => before.hand_on(self.interface, program),
            (None, Some(first)) => self.link.replace(first.as_fd()).map_err(|error| refused_link(&error)),
            (None, None) => Ok(()),
        }
    }
}

impl Member {
    fn hand_on(&self, interface: u32, to: Option<&ProgramFd>) -> Result<(), String> {
        self.next.as_ref().map_or(Ok(()), |next| next.lead(interface, to))
    }
}

impl Next {
    /// Those of an object.
    ///
    /// # Errors
    /// The object has no such map.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, String> {
        let places = ebpf.take_map("NEXT").and_then(|map| ProgramArray::try_from(map).ok());
        Ok(Self(Rc::new(RefCell::new(places.ok_or("the object has no NEXT")?))))
    }

    /// Hands packets of an interface on to a program from now on; to the kernel, where there is none.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn lead(&self, interface: u32, to: Option<&ProgramFd>) -> Result<(), String> {
        let mut places = self.0.borrow_mut();
        let Some(to) = to else {
            // Refused only where it is empty already.
            let _ = places.clear_index(&interface);
            return Ok(());
        };
        if interface >= NEXT_MAX {
            let most = NEXT_MAX - 1;
            return Err(format!("the interface has the index {interface}, and beyond {most} one has a single program"));
        }
        places.set(interface, to, 0).map_err(|error| refusal("one program behind another", &error))
    }
}

fn refused_link(error: &std::io::Error) -> String {
    let helps = match error.raw_os_error() {
        Some(1) => "needs CAP_BPF and CAP_NET_ADMIN: ",
        Some(16 | 17) => "a program of somebody else's stands there: ",
        Some(22) => "no bpf_link, which needs Linux 5.9: ",
        _ => "",
    };
    format!("attaching: {helps}{error}")
}
