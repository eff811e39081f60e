//! Clients of HTTP/3 that others wrote, against an engine: quiche, h3 over quinn, and h3i, which sends what must be rejected.
//!
//! usage: `quic-clients quiche|quinn|h3i ADDRESS AUTHORITY`; the first two ask for what [`EXCHANGES`] says, verifying `localhost` by the
//! authority in that PEM file. Prints `all well` where everything is.

mod h3i_rows;
mod quiche_client;
mod quinn_client;

use std::net::SocketAddr;
use std::process::ExitCode;

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Whom the certificate names.
pub const NAME: &str = "localhost";

/// A request, and what an answer to it is right.
pub struct Exchange {
    pub path: &'static str,
    /// Content of a POST; a GET where there is none.
    pub content: &'static [u8],
    pub right: fn(&[u8]) -> bool,
}

const UPLOAD: &[u8] = &[b'p'; 300_000];

/// All at once on one connection: a small answer, many at a time, one larger than every window, and content there and back.
pub const EXCHANGES: &[Exchange] = &[
    get("/", |body| body == b"hello\n"),
    get("/bytes/100000", |body| body.len() == 100_000),
    get("/bytes/100000", |body| body.len() == 100_000),
    get("/bytes/100000", |body| body.len() == 100_000),
    get("/bytes/100000", |body| body.len() == 100_000),
    get("/bytes/8000000", |body| body.len() == 8_000_000),
    Exchange { path: "/echo", content: UPLOAD, right: |body| body == UPLOAD },
    get("/", |body| body == b"hello\n"),
];

const fn get(path: &'static str, right: fn(&[u8]) -> bool) -> Exchange {
    Exchange { path, content: b"", right }
}

/// An answer: its status and its content.
#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

fn verify(answers: &[Answer]) -> Outcome<()> {
    for (exchange, answer) in EXCHANGES.iter().zip(answers) {
        if answer.status != 200 || !(exchange.right)(&answer.body) {
            let bytes = answer.body.len();
            return Err(format!("{}: {} with {bytes} bytes", exchange.path, answer.status).into());
        }
    }
    Ok(())
}

fn run(words: &[String]) -> Outcome<()> {
    let [client, address, authority] = words else {
        return Err("usage: quic-clients quiche|quinn|h3i ADDRESS AUTHORITY".into());
    };
    let address: SocketAddr = address.parse()?;
    match client.as_str() {
        "quiche" => verify(&quiche_client::ask(address, authority)?),
        "quinn" => verify(&quinn_client::ask(address, authority)?),
        "h3i" => h3i_rows::play(address),
        other => Err(format!("there is no client `{other}`").into()),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => {
            println!("all well");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
