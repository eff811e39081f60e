//! What a service manager is told, as systemd would hear it (sd_notify(3)), and when.

use std::fs::DirEntry;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Engine, Folder, Origin, PATIENCE, Setup, on_each_driver, python};

on_each_driver! {
    /// It is ready when it serves, not before; reads its configuration anew in between; and ends.
    fn a_life_is_told(driver) {
        let (manager, origin) = (Manager::new(""), Origin::standard());
        let mut engine = Setup::new(driver).origin(&origin).launched_by(manager.words()).start();
        let ready = manager.hears();
        assert!(has(&ready, "READY=1") && ready.contains("configuration 1 holds"), "{ready}");
        assert_eq!(engine.client().get("/").status(), 200);

        let other = "[[pool]]\nname = \"other\"\nendpoints = [\"127.0.0.1:9\"]";
        engine.write_config(&format!("{}\n{other}\n", engine.config()));
        engine.hang_up();
        let reloading = manager.hears();
        assert!(has(&reloading, "RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
        assert!(manager.hears().contains("STATUS=") && has(&manager.hears(), "READY=1"));

        // One that is refused is waited for no longer than another one, and told.
        engine.write_config("listen = 1");
        assert_eq!(engine.reload(&[]).code, Some(1));
        assert!(has(&manager.hears(), "RELOADING=1"));
        let refused = manager.hears();
        assert!(refused.contains("configuration 2 holds; the file as it is was refused: "), "{refused}");
        assert!(has(&manager.hears(), "READY=1"));

        engine.terminate();
        let stopping = manager.hears();
        assert!(has(&stopping, "STOPPING=1") && stopping.contains("EXTEND_TIMEOUT_USEC="), "{stopping}");
        assert_eq!(engine.wait(PATIENCE).code(), Some(0));
    }

    /// A manager that asks hears that the engine lives, and hears nothing when a single worker stands still.
    fn a_worker_that_hangs_is_no_life(driver) {
        let (manager, origin) = (Manager::new("WATCHDOG_USEC=600000"), Origin::standard());
        let engine = Setup::new(driver).cores("0-1").origin(&origin).launched_by(manager.words()).start();
        let mut heard: Vec<String> = (0..4).map(|_| manager.hears()).collect();
        heard.sort();
        assert!(heard[0].starts_with("READY=1") && heard[1..].iter().all(|one| has(one, "WATCHDOG=1")), "{heard:?}");
        let hanging = Hanging::worker(&engine);
        // What was said before.
        std::thread::sleep(Duration::from_millis(700));
        while manager.heard().is_some() {}
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(manager.heard(), None, "a worker hangs");
        drop(hanging);
        assert!(has(&manager.hears(), "WATCHDOG=1"));
        engine.until_idle();
    }
}

/// Says a line of its own.
fn has(message: &str, line: &str) -> bool {
    message.lines().any(|one| one == line)
}

/// Who started the engine, and listens.
struct Manager {
    folder: Folder,
    socket: UnixDatagram,
    more: String,
}

impl Manager {
    fn new(more: &str) -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.join("notify")).expect("a socket of our own");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        Self { folder, socket, more: more.to_owned() }
    }

    /// What an engine is to be started by.
    fn words(&self) -> Vec<String> {
        let socket = format!("NOTIFY_SOCKET={}", self.folder.join("notify").display());
        let more = Some(self.more.clone()).filter(|more| !more.is_empty());
        [Some("/usr/bin/env".to_owned()), Some(socket), more].into_iter().flatten().collect()
    }

    #[track_caller]
    fn hears(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).expect("something is told");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// What is there already.
    fn heard(&self) -> Option<String> {
        self.socket.set_nonblocking(true).expect("a socket of our own");
        let mut bytes = [0; 1024];
        let heard =
            self.socket.recv(&mut bytes).ok().map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned());
        self.socket.set_nonblocking(false).expect("a socket of our own");
        heard
    }
}

/// A worker's thread that a debugger has stopped, the others going on; until this is dropped.
struct Hanging(Child);

impl Hanging {
    fn worker(engine: &Engine) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", engine.pid())).expect("a process of our own");
        let name = |task: &DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let worker = tasks.flatten().find(|task| name(task).trim() == "penstock-1").expect("a second worker");
        // PTRACE_SEIZE and PTRACE_INTERRUPT stop one thread; it goes on when the debugger is gone.
        let stops = "import ctypes, sys\nlibc = ctypes.CDLL(None)\nthread = int(sys.argv[1])\n\
                     print(libc.ptrace(0x4206, thread, 0, 0), libc.ptrace(0x4207, thread, 0, 0), flush=True)\nsys.stdin.read()";
        let mut child = Command::new(python())
            .args(["-c", stops])
            .arg(worker.file_name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("it is ours");
        BufReader::new(stdout).read_line(&mut said).expect("it says how that went");
        assert_eq!(said.trim(), "0 0", "the thread may be stopped");
        Self(child)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
