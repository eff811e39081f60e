//! The engine under test: the real binary, started with a configuration file or with flags.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::driver::Driver;
use crate::message::Message;
use crate::place::{Folder, binary, free_address};
use crate::tool::{Ran, Tool, until};
use crate::wire::Client;
use crate::{Origin, PATIENCE};

/// What to start: one door, one pool, one route, each with lines of TOML that a test adds.
#[derive(Clone, Debug)]
pub struct Setup {
    driver: String,
    cores: String,
    listen: SocketAddr,
    protocol: &'static str,
    endpoints: Vec<String>,
    engine_lines: String,
    listen_lines: String,
    is_doorless: bool,
    also_admin: Option<String>,
    pool_lines: String,
    route_lines: String,
    more: String,
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Setup {
    pub fn new(driver: Driver) -> Self {
        // Tests run beside each other: each binds its one worker to a CPU by its own luck.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            driver: driver.name().to_owned(),
            cores: (std::process::id() as usize % cpus).to_string(),
            listen: free_address(),
            protocol: "http",
            endpoints: Vec::new(),
            engine_lines: String::new(),
            listen_lines: String::new(),
            is_doorless: false,
            also_admin: None,
            pool_lines: String::new(),
            route_lines: String::new(),
            more: String::new(),
            launcher: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Any driver name, `auto` included.
    pub fn driver(mut self, driver: &str) -> Self {
        driver.clone_into(&mut self.driver);
        self
    }

    pub fn cores(mut self, cores: &str) -> Self {
        cores.clone_into(&mut self.cores);
        self
    }

    pub fn origin(self, origin: &Origin) -> Self {
        self.to(&origin.address.to_string())
    }

    pub fn to(mut self, endpoint: &str) -> Self {
        self.endpoints.push(endpoint.to_owned());
        self
    }

    /// On an address that is in use already by another engine.
    pub fn at(mut self, listen: SocketAddr) -> Self {
        self.listen = listen;
        self
    }

    /// The door passes bytes through.
    pub fn tcp(mut self) -> Self {
        self.protocol = "tcp";
        self
    }

    /// Datagrams passed through.
    pub fn udp(mut self) -> Self {
        self.protocol = "udp";
        self
    }

    pub fn engine_line(mut self, line: &str) -> Self {
        self.engine_lines += &format!("{line}\n");
        self
    }

    /// One more admin address.
    pub fn also_admin(mut self, address: &str) -> Self {
        self.also_admin = Some(address.to_owned());
        self
    }

    pub fn listen_line(mut self, line: &str) -> Self {
        self.listen_lines += &format!("{line}\n");
        self
    }

    pub fn pool_line(mut self, line: &str) -> Self {
        self.pool_lines += &format!("{line}\n");
        self
    }

    pub fn route_line(mut self, line: &str) -> Self {
        self.route_lines += &format!("{line}\n");
        self
    }

    /// TOML at the end of the file.
    pub fn more(mut self, toml: &str) -> Self {
        self.more += &format!("{toml}\n");
        self
    }

    /// A program that starts the engine in its own place, keeping the process id.
    pub fn launched_by(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.launcher = words.into_iter().map(Into::into).collect();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a door: for packets alone.
    pub fn without_door(mut self) -> Self {
        self.is_doorless = true;
        self
    }

    /// The configuration file.
    pub fn toml(&self, admin: SocketAddr) -> String {
        let endpoints: Vec<String> = self.endpoints.iter().map(|endpoint| format!("{endpoint:?}")).collect();
        let (cores, driver, listen, protocol) = (&self.cores, &self.driver, self.listen, self.protocol);
        let (door, route) = if protocol != "http" {
            ("pool = \"origins\"\n", String::new())
        } else {
            ("", format!("[[route]]\npool = \"origins\"\n{}", self.route_lines))
        };
        let more_admin = self.also_admin.iter().map(|address| format!(", {address:?}")).collect::<String>();
        let door = if self.is_doorless {
            String::new()
        } else {
            format!(
                "[[listen]]\nname = \"door\"\naddr = \"{listen}\"\nprotocol = \"{protocol}\"\n{door}{}\n",
                self.listen_lines
            )
        };
        let route = if self.is_doorless { String::new() } else { route };
        let (engine_lines, pool_lines) = (&self.engine_lines, &self.pool_lines);
        format!(
            "[engine]\ncores = \"{cores}\"\ndriver = \"{driver}\"\nadmin = [\"{admin}\"{more_admin}]\n{engine_lines}\n\
             {door}[[pool]]\nname = \"origins\"\nendpoints = [{}]\n{pool_lines}\n{route}\n{}",
            endpoints.join(", "),
            self.more
        )
    }

    /// Starts it with this as its configuration file, and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Engine {
        let folder = Folder::new();
        let admin = free_address();
        let config = folder.write("penstock.toml", self.toml(admin));
        let args = ["run".to_owned(), "-c".to_owned(), config.display().to_string()];
        Engine::start(folder, self.listen, admin, &self.launcher, &self.environment, &args)
    }

    /// Starts it with flags instead of a file.
    #[track_caller]
    pub fn serve(self, more: &[&str]) -> Engine {
        let admin = free_address();
        let mut args = vec!["serve".to_owned(), "--listen".to_owned()];
        let scheme = if self.protocol == "http" { String::new() } else { format!("{}://", self.protocol) };
        args.push(format!("{scheme}{}", self.listen));
        for endpoint in &self.endpoints {
            args.extend(["--to".to_owned(), format!("{scheme}{endpoint}")]);
        }
        for (flag, value) in [("--cores", &self.cores), ("--driver", &self.driver), ("--admin", &admin.to_string())] {
            args.extend([flag.to_owned(), value.clone()]);
        }
        args.extend(more.iter().map(|&word| word.to_owned()));
        Engine::start(Folder::new(), self.listen, admin, &self.launcher, &self.environment, &args)
    }
}

/// A running engine. Killed when it is dropped; a panic in it fails the test then.
#[derive(Debug)]
pub struct Engine {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub folder: Folder,
    child: Child,
    exited: Option<ExitStatus>,
}

impl Engine {
    #[track_caller]
    fn start(
        folder: Folder,
        address: SocketAddr,
        admin: SocketAddr,
        launcher: &[String],
        environment: &[(String, String)],
        args: &[String],
    ) -> Self {
        let output = |name: &str| std::fs::File::create(folder.join(name)).expect("a file of our own");
        let (err, out) = (output("stderr"), output("stdout"));
        // When the test is killed the engine must not outlive it.
        let mut words: Vec<String> = match xtask::place::program("setpriv") {
            Some(setpriv) => [&setpriv.display().to_string(), "--pdeathsig", "KILL"].map(str::to_owned).to_vec(),
            None => Vec::new(),
        };
        words.extend(launcher.iter().cloned());
        words.push(binary().display().to_string());
        words.extend(args.iter().cloned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let mut engine = Self { address, admin, folder, child, exited: None };
        until("the engine answers on its admin address", PATIENCE, || {
            if let Some(status) = engine.try_exited() {
                panic!("the engine ended at once, {status}:\n{}", engine.err());
            }
            engine.is_ready()
        });
        engine
    }

    fn is_ready(&self) -> bool {
        Client::try_connect(self.admin).is_ok_and(|client| {
            let mut client = client.within(Duration::from_secs(1));
            let asked = client.try_send("GET /status HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
            asked.is_ok() && client.response(false).is_ok_and(|response| response.status() == 200)
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection to the door.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// What it wrote to standard error so far.
    pub fn err(&self) -> String {
        self.read("stderr")
    }

    /// What it wrote to standard output so far.
    pub fn out(&self) -> String {
        self.read("stdout")
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A page of the admin endpoint.
    #[track_caller]
    pub fn page(&self, path: &str) -> Message {
        let mut client = Client::connect(self.admin);
        client.ask(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"))
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.json("/status")
    }

    /// What `/show/endpoints` says of each endpoint.
    #[track_caller]
    pub fn endpoints(&self) -> Vec<Value> {
        let Value::Array(rows) = self.json("/show/endpoints") else { panic!("/show/endpoints is no list") };
        rows
    }

    /// What `/show/endpoints` says of one.
    #[track_caller]
    pub fn endpoint(&self, name: &str) -> Value {
        row_of(&self.endpoints(), name)
    }

    #[track_caller]
    fn json(&self, path: &str) -> Value {
        let page = self.page(path);
        assert_eq!(page.status(), 200);
        serde_json::from_slice(&page.body).unwrap_or_else(|error| panic!("{path}: {error}\n{}", page.text()))
    }

    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let page = self.page("/metrics");
        assert_eq!(page.status(), 200);
        Metrics::parse(&page.text())
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub fn until_metric(&self, name: &str, wanted: u64) {
        let mut last = 0;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            last = self.metrics().sum(name);
            if last == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} is {last} and does not become {wanted}");
    }

    /// Waits until nothing is left of what clients did: the engine forgets whom it served.
    #[track_caller]
    pub fn until_idle(&self) {
        self.until_metric("requests_open", 0);
        self.until_metric("connections_open", 0);
        self.until_metric("tunnels_open", 0);
        assert_eq!(self.metrics().sum("panics_total"), 0, "a task panicked:\n{}", self.err());
    }

    pub fn memory(&self) -> Memory {
        memory_of(self.pid())
    }

    /// What its configuration file says.
    #[track_caller]
    pub fn config(&self) -> String {
        std::fs::read_to_string(self.folder.join("penstock.toml")).expect("a file of our own")
    }

    /// Has the file say something else; the engine hears of it by [`reload`](Self::reload).
    pub fn write_config(&self, toml: &str) {
        self.folder.write("penstock.toml", toml);
    }

    /// `penstock reload`, with these arguments more.
    pub fn reload(&self, args: &[&str]) -> Ran {
        Tool::new(binary(), 30).args(["reload"]).args(args).args(["--admin", &self.admin.to_string()]).run()
    }

    /// Goes on by another configuration, which is in order.
    #[track_caller]
    pub fn adopt(&self, toml: &str) {
        self.write_config(toml);
        let ran = self.reload(&[]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }

    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// What `body` does happens at once, as far as the engine can tell.
    #[track_caller]
    pub fn while_it_stands_still<T>(&self, body: impl FnOnce() -> T) -> T {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.pid());
        until("it stands still", PATIENCE, || {
            std::fs::read_to_string(&stat)
                .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
        });
        let done = body();
        self.signal(Signal::CONT);
        done
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
        let _ = kill_process(pid, signal);
    }

    pub fn try_exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("a child can be waited for");
        }
        self.exited
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        until("the engine exits", patience, || {
            status = self.try_exited();
            status.is_some()
        });
        status.expect("just seen")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.try_exited().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let err = self.err();
        if std::thread::panicking() {
            eprintln!("── the engine's standard error ──\n{err}──");
        } else {
            assert!(!err.contains("panicked at"), "the engine panicked:\n{err}");
        }
    }
}

/// What `/metrics` says.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Self(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// Of all workers. The name is without `penstock_`.
    #[track_caller]
    pub fn sum(&self, name: &str) -> u64 {
        let name = format!("penstock_{name}");
        let is_it = |key: &str| key == name || key.strip_prefix(&name).is_some_and(|rest| rest.starts_with('{'));
        let mut values = self.0.iter().filter(|(key, _)| is_it(key)).map(|(_, value)| *value).peekable();
        assert!(values.peek().is_some(), "there is no metric {name}");
        values.sum::<f64>() as u64
    }

    /// How much a counter has grown since `earlier`.
    #[track_caller]
    pub fn since(&self, earlier: &Self, name: &str) -> u64 {
        self.sum(name) - earlier.sum(name)
    }
}

/// The row of an endpoint, in what `penstock show` has of them.
#[track_caller]
pub fn row_of(rows: &[Value], endpoint: &str) -> Value {
    rows.iter().find(|row| row["endpoint"] == endpoint).unwrap_or_else(|| panic!("no {endpoint}: {rows:?}")).clone()
}

/// A process's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Memory {
    pub resident: u64,
    /// What is the process's own: its heap and stacks.
    pub anonymous: u64,
}

/// As the kernel counts it now.
#[track_caller]
pub fn memory_of(pid: u32) -> Memory {
    let path = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) << 10
    };
    Memory { resident: bytes("Rss:"), anonymous: bytes("Anonymous:") }
}
