//! `bench far`: a path that is long and loses, between a client and a server that are on one machine. Datagrams alone: each is kept for half a
//! round trip, or lost, as chance has it that a seed decides. There is no bottleneck: what is measured is how a sender bears loss that is no
//! congestion.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ring::{Now, Received, Transmit, UdpOptions, UdpSocket};
use xtask::Outcome;

use crate::flags::Flags;
use crate::load::{h3, own};
use crate::process::{self, Running, myself, words};
use crate::stats::Chance;

/// What the path is like, for everybody.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(20);
/// In each direction.
const LOST_PERCENT: f64 = 1.0;

/// Datagrams under way: more are lost, whatever chance says.
const UNDER_WAY_MAX: usize = 1 << 16;
/// A path to one server, for as long as this lives.
pub(crate) struct Far {
    pub(crate) address: SocketAddr,
    _running: Running,
}

impl Far {
    /// Starts one, and waits until the server answers over it.
    pub(crate) fn start(to: SocketAddr, trust: &Path, folder: &Path, cpu: usize, seed: u64) -> Outcome<Self> {
        let address = process::free_address()?;
        let (listen, to, seed) = (address.to_string(), to.to_string(), seed.to_string());
        let line = words([&myself()?, &"far", &"--listen", &listen, &"--to", &to, &"--seed", &seed]);
        let mut running = Running::start("the path", cpu, &line, &[], &folder.join("far.log"))?;
        running.wait_until(address, || h3::check(address, trust, cpu))?;
        Ok(Self { address, _running: running })
    }
}

/// `bench far --listen ADDRESS --to ADDRESS --seed N [--driver uring|epoll]`: carries datagrams until it is ended.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--listen", "--to", "--seed", "--driver"], &[])?;
    let listen: SocketAddr = flags.need("--listen")?;
    let (to, seed) = (flags.need("--to")?, flags.need("--seed")?);
    let ring = own::ring(&flags)?;
    ring.block_on(carry(listen, to, seed)).map_err(|error| format!("{listen}: {error}"))
}

/// A datagram under way.
struct Late {
    due: Now,
    by: Rc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// All take equally long, so that those that set out first are first.
struct Way {
    late: RefCell<VecDeque<Late>>,
    chance: RefCell<Chance>,
}

impl Way {
    /// Sets datagrams that came together on their way, if it does not lose them.
    fn send(&self, received: &Received<'_>, by: &Rc<UdpSocket>, to: SocketAddr) {
        let due = ring::precise_now() + ROUND_TRIP / 2;
        let mut late = self.late.borrow_mut();
        for datagram in received.bytes.chunks(received.stride) {
            if self.chance.borrow_mut().percent() >= LOST_PERCENT && late.len() < UNDER_WAY_MAX {
                late.push_back(Late { due, by: Rc::clone(by), to, bytes: datagram.to_vec() });
            }
        }
    }

    /// Brings datagrams to where they are going, each in its time.
    async fn bring(&self) {
        loop {
            let now = ring::precise_now();
            while let Some(Late { by, to, bytes, .. }) = self.take_due(now) {
                // What finds no room is lost as well.
                let _ = by.send(&Transmit { to, from: None, ecn: 0, segment: None, bytes: &bytes });
            }
            // What sets out while nothing is under way is due later than this.
            let next = self.late.borrow().front().map_or(now + ROUND_TRIP / 4, |late| late.due);
            ring::sleep_until(next).await;
        }
    }

    fn take_due(&self, now: Now) -> Option<Late> {
        let mut late = self.late.borrow_mut();
        if late.front()?.due > now { None } else { late.pop_front() }
    }
}

async fn carry(listen: SocketAddr, server: SocketAddr, seed: u64) -> io::Result<()> {
    let way = Rc::new(Way { late: RefCell::default(), chance: RefCell::new(Chance::new(seed)) });
    let front = Rc::new(bind(listen)?);
    let bringing = Rc::clone(&way);
    ring::spawn(async move { bringing.bring().await });
    let mut clients: HashMap<SocketAddr, Rc<UdpSocket>> = HashMap::new();
    loop {
        let mut failed = None;
        poll_fn(|cx| {
            front.poll_receive(cx, &mut |received| {
                match back_of(received.from, &mut clients, &way, &front) {
                    Ok(back) => way.send(&received, &back, server),
                    Err(error) => failed = Some(error),
                };
            })
        })
        .await?;
        if let Some(error) = failed {
            return Err(error);
        }
        ring::yield_now().await;
    }
}

/// The socket that stands for a client before the server.
fn back_of(
    client: SocketAddr,
    clients: &mut HashMap<SocketAddr, Rc<UdpSocket>>,
    way: &Rc<Way>,
    front: &Rc<UdpSocket>,
) -> io::Result<Rc<UdpSocket>> {
    if let Some(back) = clients.get(&client) {
        return Ok(Rc::clone(back));
    }
    let back = Rc::new(bind(SocketAddr::new(front.local()?.ip(), 0))?);
    clients.insert(client, Rc::clone(&back));
    ring::spawn(answers(Rc::clone(way), Rc::clone(front), Rc::clone(&back), client));
    Ok(back)
}

/// Sets on their way back what the server sends to a client.
async fn answers(way: Rc<Way>, front: Rc<UdpSocket>, back: Rc<UdpSocket>, client: SocketAddr) {
    while poll_fn(|cx| back.poll_receive(cx, &mut |received| way.send(&received, &front, client))).await.is_ok() {
        ring::yield_now().await;
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(address, &UdpOptions { reuse_port: false, ..UdpOptions::default() })
}
