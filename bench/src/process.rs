//! Processes that we start: each pinned to its CPUs, each ended by its own id, none left behind.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;
use xtask::Outcome;

use crate::meter;

/// How long a contender may take to answer its first request; Envoy and Caddy need a second on a busy machine.
const START_TIME: Duration = Duration::from_secs(20);
/// How long a contender may take to end after SIGTERM.
const STOP_TIME: Duration = Duration::from_secs(3);

/// The CPUs that a process may use: `1`, or `0,1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpus(Vec<usize>);

impl From<usize> for Cpus {
    fn from(cpu: usize) -> Self {
        Self(vec![cpu])
    }
}

impl FromStr for Cpus {
    type Err = ();

    fn from_str(list: &str) -> Result<Self, ()> {
        list.split(',').map(|cpu| cpu.trim().parse().map_err(|_| ())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&names.join(","))
    }
}

impl Cpus {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// `bench pinned CPUS PROGRAM ARGUMENT…`: becomes the program on these CPUs, with all the descriptors it may have, and dies with its parent.
pub(crate) fn pinned(words: &[String]) -> Outcome {
    let [cpus, program, arguments @ ..] = words else {
        return Err("pinned CPUS PROGRAM ARGUMENT…".to_owned());
    };
    pin_here(&cpus.parse().map_err(|()| format!("`{cpus}` is no list of CPU numbers"))?)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| format!("prctl(PR_SET_PDEATHSIG): {error}"))?;
    let files = rustix::process::getrlimit(Resource::Nofile);
    // Refused only where it may not be raised; the contender then says itself that it is short of descriptors.
    let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    Err(format!("{program}: {}", Command::new(program).args(arguments).exec()))
}

/// Pins the calling thread, and what it starts from now on.
pub(crate) fn pin_here(cpus: &Cpus) -> Outcome {
    let mut set = CpuSet::new();
    for cpu in &cpus.0 {
        if *cpu >= CpuSet::MAX_CPU {
            return Err(format!("CPU {cpu} is beyond what a CPU set holds"));
        }
        set.set(*cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|error| format!("pinning to CPU {cpus}: {error}; this machine may have fewer CPUs"))
}

/// The command `bench pinned CPUS words…`.
pub(crate) fn pinned_command(cpus: &Cpus, words: &[OsString]) -> Outcome<Command> {
    let mut command = Command::new(myself()?);
    command.arg("pinned").arg(cpus.to_string()).args(words).stdin(Stdio::null());
    Ok(command)
}

/// This binary, to start its hidden subcommands.
pub(crate) fn myself() -> Outcome<PathBuf> {
    std::env::current_exe().map_err(|error| format!("cannot tell my own path: {error}"))
}

/// Words of a command line.
pub(crate) fn words<const N: usize>(words: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// A process of ours. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program on its CPUs, what it prints going to `log`. It dies with the calling thread.
    pub(crate) fn start(
        name: &str,
        cpus: impl Into<Cpus>,
        program: &[OsString],
        environment: &[(&str, OsString)],
        log: &Path,
    ) -> Outcome<Self> {
        let open = || {
            File::options().create(true).append(true).open(log).map_err(|error| format!("{}: {error}", log.display()))
        };
        let mut command = pinned_command(&cpus.into(), program)?;
        command.stdout(open()?).stderr(open()?).envs(environment.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().map_err(|error| format!("{name} did not start: {error}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Every process of this contender: what we started and what it started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        meter::tree(self.child.id())
    }

    /// Waits until a GET is answered with 200, or tells why it never was.
    pub(crate) fn wait_until_it_answers(&mut self, address: SocketAddr, path: &str) -> Outcome {
        self.wait_until(address, || answered(get(address, path)))
    }

    /// The same, with whatever `ask` asks.
    pub(crate) fn wait_until(&mut self, address: SocketAddr, ask: impl Fn() -> Outcome) -> Outcome {
        let until = Instant::now() + START_TIME;
        loop {
            let last = match ask() {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended at once ({status}): {}", self.name, self.said()));
            }
            if Instant::now() > until {
                return Err(format!("{} does not answer on {address}: {last}; it said: {}", self.name, self.said()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The end of what it printed.
    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(5)..].join(" | ");
        if tail.is_empty() { "(nothing)".to_owned() } else { tail }
    }

    /// Ends it as a crash would: at once, without a word.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// Sends it a signal, if it is still there.
    pub(crate) fn signal(&mut self, sent: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.child.id(), sent);
        }
    }

    fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            // Waited for already: the id may be somebody else's by now.
            return;
        }
        // Remembered by name too: an id is used again, a process of another name is not ours.
        let family: Vec<(u32, String)> =
            self.processes().into_iter().filter_map(|pid| Some((pid, meter::name(pid)?))).collect();
        signal(self.child.id(), Signal::TERM);
        // A stopped process hears nothing else.
        signal(self.child.id(), Signal::CONT);
        let until = Instant::now() + STOP_TIME;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        for (pid, name) in family {
            if meter::name(pid).is_some_and(|now| now == name)
                && (pid != self.child.id() || matches!(self.child.try_wait(), Ok(None)))
            {
                signal(pid, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Whether a response is there, and is a 200.
pub(crate) fn answered(response: std::io::Result<String>) -> Outcome {
    match response {
        Ok(response) if response.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(response) => Err(format!("answered `{}`", response.lines().next().unwrap_or_default())),
        Err(error) => Err(error.to_string()),
    }
}

/// One GET over a connection of its own; the whole response as text.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    get_over(connect(address)?, address, path)
}

/// A connection whose every read and write has a deadline.
pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let limit = Duration::from_secs(2);
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// One GET over a connection, and everything up to its end as text.
pub(crate) fn get_over(mut stream: impl Read + Write, address: SocketAddr, path: &str) -> std::io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    let mut buffer = [0; 16_384];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => response.extend_from_slice(&buffer[..count]),
            // The end of TLS that was not announced.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
                    && !response.is_empty() =>
            {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// A port of the loopback that nobody listens on. Another process may take it before its user does; that user then says so.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port on the loopback: {error}"))
}

/// A folder for configurations and logs, removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("penstock-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path })
    }

    /// A folder inside, made when it is not there.
    pub(crate) fn folder(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Writes a file, or says which could not be written.
pub(crate) fn write_file(path: &Path, contents: impl AsRef<[u8]>) -> Outcome {
    std::fs::write(path, contents).map_err(|error| format!("{}: {error}", path.display()))
}
