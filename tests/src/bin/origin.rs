//! An origin in a process of its own, so that it can be killed: `test-origin JOURNAL`.
//!
//! Prints its address, then answers until its standard input ends. Each request's id goes to the journal before it is answered,
//! in one write, so that it is there whenever the process dies. The answer to `X-Id: N` is `pattern(N, size)`, with its id and its
//! checksum in its head; `/made/SIZE` names the size.

#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{Read, Write};

use harness::{Origin, checksum, pattern};

fn main() {
    let path = std::env::args().nth(1).expect("test-origin JOURNAL");
    let journal = OpenOptions::new().create(true).append(true).open(path).expect("the journal");
    let origin = Origin::answering(move |request| {
        let id: u64 = request.field("x-id")?.parse().ok()?;
        let line = format!("{} {id}\n", request.method());
        (&journal).write_all(line.as_bytes()).ok()?;
        let size: usize = request.target().strip_prefix("/made/")?.parse().ok()?;
        let body = pattern(id, size);
        // What came is part of the answer: a request that was mixed up with another one shows.
        let sum = checksum(&body) ^ checksum(&request.body);
        let mut response =
            format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nX-Sum: {sum:x}\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        response.extend_from_slice(&body);
        Some(response)
    });
    println!("{}", origin.address);
    let mut end = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut end);
}
