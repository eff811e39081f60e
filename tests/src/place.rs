//! Where things are: the binary under test, Python, a folder that goes away, an address that nobody uses.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The real binary: `PENSTOCK_BINARY`, or the release build, made when it is not there.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("PENSTOCK_BINARY") {
            return PathBuf::from(path);
        }
        let path = target().join("release/penstock");
        let _lock = locked("build");
        if !path.is_file() {
            let built = Command::new("cargo")
                .args(["build", "--release", "--package", "penstock", "--target-dir"])
                .arg(target())
                .current_dir(xtask::place::root())
                .status();
            assert!(built.is_ok_and(|status| status.success()), "cargo build --release --package penstock");
        }
        path
    })
}

/// A Python that has what our scripts import: `PENSTOCK_TEST_PYTHON`, or the one that `cargo xtask test` would make.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        if let Some(path) = std::env::var_os("PENSTOCK_TEST_PYTHON") {
            return PathBuf::from(path);
        }
        let _lock = locked("python");
        let bin = xtask::install::python(&target().join("python"), xtask::install::PYTHON)
            .expect("a Python and its packages");
        bin.join("python")
    })
}

/// The clients of HTTP/3 that others wrote: `PENSTOCK_TEST_QUIC_CLIENTS`. They take minutes to build, so `cargo xtask test` does it, and not a test.
pub(crate) fn quic_clients() -> Option<PathBuf> {
    std::env::var_os("PENSTOCK_TEST_QUIC_CLIENTS").map(PathBuf::from)
}

/// One of our Python scripts.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Cargo's target folder: where this test was built.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    folder.map_or_else(|| xtask::place::target_directory().expect("cargo knows it"), Path::to_path_buf)
}

/// A file's lock, over all test processes.
fn locked(name: &str) -> File {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(std::env::temp_dir().join(format!("penstock-tests-{name}.lock")))
        .expect("a file of our own");
    file.lock().expect("a lock on it");
    file
}

/// An address on the loopback that nobody listens on, below the kernel's own choice of ports, and given out once in a while:
/// somebody else's connection cannot take it before it is used.
pub fn free_address() -> SocketAddr {
    let mut file = locked("port");
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    let mut port = text.trim().parse().unwrap_or(PORTS.start);
    for _ in PORTS {
        port = if PORTS.contains(&(port + 1)) { port + 1 } else { PORTS.start };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            file.set_len(0).and_then(|()| file.rewind()).expect("our own file");
            write!(file, "{port}").expect("our own file");
            return address;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

const PORTS: std::ops::Range<u16> = 12_000..31_000;

/// A folder that goes away with its owner.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    #[allow(clippy::new_without_default, reason = "making a folder is no default")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("penstock-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
