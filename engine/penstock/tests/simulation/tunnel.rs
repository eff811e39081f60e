//! Both ends of a TCP pass-through: each says its part and ends it, and hears the other's part to its end.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ring::sim::{Host, Listening, Socket};

use crate::ledger::{Ledger, REQUEST, content};
use crate::scene::{RAW, Strict, address};

/// Virtual time within which both parts are through.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// Opens a tunnel, says its number and its part, and hears the origin's.
pub(crate) async fn client(host: Host, ledger: Rc<Ledger>, size_max: usize, strict: Strict) {
    host.dawdle(Duration::from_millis(200)).await;
    let id = ledger.ask().id;
    let socket = match host.connect(&address(RAW)).await {
        Ok(socket) => socket,
        Err(error) => return assert!(strict.may_break || ledger.drained_at().is_some(), "connect: {error}"),
    };
    let size = host.pick(0..=size_max);
    let mut said = id.to_le_bytes().to_vec();
    said.extend((size as u64).to_le_bytes());
    said.extend(content(id, REQUEST, size));
    let begun = host.now();
    let fared = host.within(PATIENCE, converse(&host, &socket, said, id, strict)).await;
    let fared = fared.unwrap_or_else(|| panic!("tunnel {id} hangs"));
    let late = ledger.drained_at().is_some_and(|drained| drained <= begun);
    assert!(fared.is_ok() || strict.may_break || strict.may_refuse || late, "tunnel {id}: {fared:?}");
}

pub(crate) async fn origin(host: Host, listening: Listening, ledger: Rc<Ledger>, size_max: usize, strict: Strict) {
    loop {
        let socket = listening.accept().await;
        let ledger = Rc::clone(&ledger);
        host.spawn("tunnel's end", move |host| async move {
            let fared = host.within(PATIENCE, answer(&host, socket, &ledger, size_max, strict)).await;
            let fared = fared.expect("an origin of a tunnel hangs");
            assert!(fared.is_ok() || strict.may_break || ledger.drained_at().is_some(), "a tunnel's end: {fared:?}");
        });
    }
}

async fn answer(host: &Host, socket: Socket, ledger: &Ledger, size_max: usize, strict: Strict) -> io::Result<()> {
    let number = async |socket: &Socket| {
        let bytes = socket.recv_exact(8).await?;
        Ok::<_, io::Error>(u64::from_le_bytes(bytes.try_into().expect("eight")))
    };
    let id = number(&socket).await?;
    let size = number(&socket).await? as usize;
    assert!(ledger.asked(id).is_some(), "a tunnel that nobody opened: {id}");
    let own = host.pick(0..=size_max);
    let mut said = (own as u64).to_le_bytes().to_vec();
    said.extend(content(id, 0, own));
    if strict.may_refuse && host.chance(0.3) {
        // Breaks off, with nothing on its way up: then nobody but a reader can learn of it.
        socket.recv_to_end().await?;
        socket.send(&said[..host.pick(0..=said.len() - 1)]).await?;
        host.dawdle(Duration::from_millis(50)).await;
        socket.reset();
        return Ok(());
    }
    let writer = say(host, &socket, said);
    let heard = socket.recv_to_end().await;
    writer.await?;
    judge(&heard?, &content(id, REQUEST, size), &format!("the client's part of tunnel {id}"), strict)
}

async fn converse(host: &Host, socket: &Socket, said: Vec<u8>, id: u64, strict: Strict) -> io::Result<()> {
    let writer = say(host, socket, said);
    let heard = async {
        let size = socket.recv_exact(8).await?;
        let size = u64::from_le_bytes(size.try_into().expect("eight")) as usize;
        Ok::<_, io::Error>((size, socket.recv_to_end().await?))
    };
    let heard = heard.await;
    writer.await?;
    let (size, heard) = heard?;
    judge(&heard, &content(id, 0, size), &format!("the origin's part of tunnel {id}"), strict)
}

/// Of the class that tunnels of a shaped scene have: the stricter of its two.
pub(crate) const PACE: u64 = 150_000;
/// What a steady tunnel carries each way.
const STEADY: usize = 300_000;

/// Says and hears much at once, through a tunnel that keeps to a pace: in the time that this takes at that pace, within 2 %.
pub(crate) async fn steady(host: Host) {
    let socket = host.connect(&address(RAW)).await.expect("the door is open");
    let begun = host.now();
    let speaker = socket.clone();
    let said = host.spawn("speaker", async move |_| speaker.send(&[1; STEADY]).await);
    socket.recv_exact(STEADY).await.expect("the origin's part");
    said.await.expect("there is somebody");
    socket.shutdown_write();
    assert_eq!(socket.recv_to_end().await.expect("no break").len(), 1, "the origin has heard all");
    let (took, wanted) = (host.now() - begun, STEADY as u64 * 1_000_000_000 / PACE);
    assert!((wanted * 98 / 100..=wanted * 102 / 100).contains(&took), "{took} ns, and not {wanted}");
}

/// The other end of it.
pub(crate) async fn steady_origin(host: Host, listening: Listening) {
    loop {
        let socket = listening.accept().await;
        host.spawn("steady end", async move |host: Host| {
            let speaker = socket.clone();
            let said = host.spawn("speaker", async move |_| speaker.send(&[2; STEADY]).await);
            socket.recv_exact(STEADY).await.expect("the client's part");
            said.await.expect("there is somebody");
            socket.send(&[3]).await.expect("there is somebody");
            socket.shutdown_write();
        });
    }
}

fn judge(heard: &[u8], said: &[u8], part: &str, strict: Strict) -> io::Result<()> {
    assert!(said.starts_with(heard), "{part} is something else");
    if strict.may_break && heard.len() < said.len() {
        // A send and a receive of the engine race for the one error of a connection that breaks (`sk_err`): if the send
        // takes it, the receive sees an end. Who asks for both at once cannot tell that from a FIN.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    assert_eq!(heard.len(), said.len(), "{part} ends where there is no end");
    Ok(())
}

fn say(host: &Host, socket: &Socket, said: Vec<u8>) -> ring::sim::Script<io::Result<()>> {
    let socket = socket.clone();
    host.spawn("speaker", move |host| async move {
        socket.send_split(&host, &said, Duration::from_millis(20)).await?;
        host.dawdle(Duration::from_millis(50)).await;
        socket.shutdown_write();
        Ok(())
    })
}
