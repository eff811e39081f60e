//! qlog's files: a worker hands over what it has written of a connection, and one thread puts it on disk.
//!
//! What holds here, as for the [access log](super::access_log): nobody waits for the disk. What finds the writer behind is dropped and counted, and so is
//! what goes beyond a file's length. There are never more files than were asked for, and no more connections are written down at a time.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use super::WorkerCells;
use crate::limits;
use crate::snapshot::{Cidr, QlogSettings};

/// Begins each record of a JSON text sequence (RFC 7464 §2.2). No JSON has it in it.
const RECORD: u8 = 0x1e;

/// Bytes of a connection that are collected before they are handed over.
const BATCH_BYTES: usize = 16 << 10;

/// No record that is written here is longer: a frame's or a packet's is 300 bytes.
const RECORD_BYTES_MAX: usize = 2 << 10;

/// How a file's name ends.
const SUFFIX: &str = ".sqlog";

/// Whose connections are written down, and the thread that does it.
#[derive(Debug)]
pub struct Qlog {
    settings: QlogSettings,
    peers: RwLock<Vec<Cidr>>,
    /// Connections that are being written down.
    open: AtomicU32,
    sender: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Message {
    Batch {
        name: Arc<str>,
        /// The file begins with it.
        first: bool,
        bytes: Vec<u8>,
    },
    End,
}

impl Qlog {
    /// Makes the folder, and starts the thread.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn start(settings: &QlogSettings) -> io::Result<Arc<Self>> {
        let folder = settings.folder.clone();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("qlog {}: {error}", folder.display()));
        fs::create_dir_all(&folder).map_err(named)?;
        let files = begun(&folder).map_err(named)?;
        let (sender, receiver) = sync_channel(limits::QLOG_QUEUE);
        let mut writer = Files { folder, files, files_max: settings.files as usize, complained: false };
        let thread = std::thread::Builder::new().name("penstock-qlog".into()).spawn(move || writer.write(&receiver))?;
        Ok(Arc::new(Self {
            settings: settings.clone(),
            peers: RwLock::new(settings.peers.clone()),
            open: AtomicU32::new(0),
            sender,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Whether connections with a peer that begin now are written down.
    #[must_use]
    pub fn wants(&self, peer: IpAddr) -> bool {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).iter().any(|network| network.contains(peer))
    }

    /// Connections with these peers are written down from now on, or are not; whether they were.
    ///
    /// # Errors
    /// There are too many such networks.
    pub fn tell(&self, network: Cidr, on: bool) -> Result<bool, String> {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let was = peers.contains(&network);
        if on && !was && peers.len() >= limits::QLOG_PEERS_MAX {
            return Err(format!("there are {} networks whose connections are written down", peers.len()));
        }
        peers.retain(|other| *other != network);
        if on {
            peers.push(network);
        }
        Ok(was)
    }

    /// A file for a connection; `None` when there are as many as there may be.
    #[must_use]
    pub fn begin(self: &Arc<Self>, name: &str, cells: &Arc<WorkerCells>) -> Option<Sheet> {
        let free = |open| (open < self.settings.files).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_err() {
            cells.counters.qlog_refused_total.add(1);
            return None;
        }
        cells.counters.qlog_connections_total.add(1);
        Some(Sheet(Arc::new(Open {
            qlog: Arc::clone(self),
            cells: Arc::clone(cells),
            name: format!("{name}{SUFFIX}").into(),
            written: Mutex::default(),
        })))
    }
}

impl Drop for Qlog {
    fn drop(&mut self) {
        let _ = self.sender.send(Message::End);
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

/// What is written of one connection. Each record is to begin with a write of [`RECORD`] in front; a whole one is dropped, or none of it.
#[derive(Clone, Debug)]
pub struct Sheet(Arc<Open>);

#[derive(Debug)]
struct Open {
    qlog: Arc<Qlog>,
    cells: Arc<WorkerCells>,
    name: Arc<str>,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    batch: Vec<u8>,
    records: u64,
    /// Bytes handed over.
    handed: u64,
    begun: bool,
    /// The record under way is not written: it has no room, or is not wanted.
    passing: bool,
    /// There is no file to go on with.
    lost: bool,
    muted: bool,
}

impl Sheet {
    /// While it is muted, what is written is not wanted.
    pub fn mute(&self, muted: bool) {
        self.0.lock().muted = muted;
    }

    /// Writes a record.
    pub fn record(&self, json: &[u8]) {
        let mut written = self.0.lock();
        self.0.begin_record(&mut written);
        for part in [&[RECORD][..], json, b"\n"] {
            self.0.put(&mut written, part);
        }
    }

    /// Hands over what has been collected.
    pub fn flush(&self) {
        self.0.hand_over(&mut self.0.lock());
    }
}

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock();
        if bytes.first() == Some(&RECORD) {
            self.0.begin_record(&mut written);
        }
        self.0.put(&mut written, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_record(&self, written: &mut Written) {
        if written.batch.len() >= BATCH_BYTES {
            self.hand_over(written);
        }
        let length = written.handed + (written.batch.len() + RECORD_BYTES_MAX) as u64;
        let full = written.lost || length > self.qlog.settings.file_max;
        written.passing = full || written.muted;
        if full {
            self.cells.counters.qlog_records_dropped_total.add(1);
        } else if !written.passing {
            written.records += 1;
        }
    }

    fn put(&self, written: &mut Written, bytes: &[u8]) {
        if !written.passing {
            written.batch.extend_from_slice(bytes);
        }
    }

    fn hand_over(&self, written: &mut Written) {
        if written.batch.is_empty() {
            return;
        }
        let first = !std::mem::replace(&mut written.begun, true);
        let bytes = std::mem::take(&mut written.batch);
        let records = std::mem::take(&mut written.records);
        written.handed += bytes.len() as u64;
        if self.qlog.sender.try_send(Message::Batch { name: Arc::clone(&self.name), first, bytes }).is_err() {
            self.cells.counters.qlog_records_dropped_total.add(records);
            // Nobody can read what has no beginning.
            written.lost |= first;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut written = std::mem::take(&mut *self.lock());
        self.hand_over(&mut written);
        self.qlog.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The thread's end.
struct Files {
    folder: PathBuf,
    /// Those that are there, in the order in which they were begun.
    files: VecDeque<PathBuf>,
    files_max: usize,
    complained: bool,
}

impl Files {
    fn write(&mut self, receiver: &Receiver<Message>) {
        while let Ok(Message::Batch { name, first, bytes }) = receiver.recv() {
            let path = self.folder.join(&*name);
            if first {
                self.make_room(&path);
            }
            let mut options = OpenOptions::new();
            // They tell who was here.
            options.mode(0o640).write(true);
            let opened = if first { options.create(true).truncate(true) } else { options.append(true) }.open(&path);
            match opened.and_then(|mut file: File| file.write_all(&bytes)) {
                // It was begun so long ago that it had to make room.
                Err(error) if !first && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if !std::mem::replace(&mut self.complained, true) => {
                    eprintln!("penstock: qlog {} cannot be written: {error}", path.display());
                }
                _ => {}
            }
        }
    }

    fn make_room(&mut self, path: &Path) {
        self.files.retain(|other| other != path);
        self.files.push_back(path.to_path_buf());
        while self.files.len() > self.files_max
            && let Some(oldest) = self.files.pop_front()
        {
            let _ = fs::remove_file(oldest);
        }
    }
}

/// Files that were begun before, in that order. What is not named as ours is not.
fn begun(folder: &Path) -> io::Result<VecDeque<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if ours.is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(files: u32, file_max: u64) -> (PathBuf, Arc<Qlog>, Arc<WorkerCells>) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("penstock-qlog-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let settings = QlogSettings { folder: folder.clone(), peers: Vec::new(), files, file_max };
        let qlog = Qlog::start(&settings).expect("a folder of our own");
        (folder, qlog, Arc::new(WorkerCells::default()))
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("it was made");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("it is there").file_name().into_string().expect("it is text")).collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_begun_first_goes() {
        let (folder, qlog, cells) = made(2, 1 << 20);
        fs::write(folder.join("notes.txt"), "not ours").expect("a file of our own");
        for name in ["03", "01", "02"] {
            qlog.begin(name, &cells).expect("none is open").record(b"{}");
        }
        drop(qlog);
        assert_eq!(names(&folder), ["01.sqlog", "02.sqlog", "notes.txt"]);
        // Those that are there count for the next process.
        let settings = QlogSettings { folder: folder.clone(), peers: Vec::new(), files: 1, file_max: 1 << 20 };
        let qlog = Qlog::start(&settings).expect("the folder is there");
        qlog.begin("04", &cells).expect("none is open").record(b"{}");
        drop(qlog);
        assert_eq!(names(&folder), ["04.sqlog", "notes.txt"]);
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn no_more_connections_at_a_time_than_files() {
        let (folder, qlog, cells) = made(2, 1 << 20);
        let held = (qlog.begin("01", &cells), qlog.begin("02", &cells));
        assert!(held.0.is_some() && held.1.is_some() && qlog.begin("03", &cells).is_none());
        assert_eq!(cells.counters.qlog_refused_total.get(), 1);
        drop(held);
        assert!(qlog.begin("04", &cells).is_some(), "whoever has ended makes room");
        drop(qlog);
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn a_file_ends_with_a_whole_record() {
        let file_max = 40 << 10;
        let (folder, qlog, cells) = made(2, file_max);
        let sheet = qlog.begin("01", &cells).expect("none is open");
        let text = format!("{{\"a\":\"{}\"}}", "b".repeat(300));
        (0..1_000).for_each(|_| sheet.record(text.as_bytes()));
        // As the library writes: in pieces.
        let mut writer = sheet.clone();
        for piece in ["\x1e", "{\"c\"", ":1}", "\n"] {
            writer.write_all(piece.as_bytes()).expect("it is never refused");
        }
        drop((sheet, writer, qlog));
        let written = fs::read(folder.join("01.sqlog")).expect("it was begun");
        assert!(written.len() as u64 <= file_max && written.len() as u64 > file_max - 4_096, "{}", written.len());
        let records: Vec<_> = written.split(|byte| *byte == RECORD).skip(1).collect();
        assert!(records.iter().all(|record| **record == *format!("{text}\n").as_bytes()));
        assert_eq!(cells.counters.qlog_records_dropped_total.get(), 1_001 - records.len() as u64);
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn a_writer_that_is_behind_costs_records_and_not_time() {
        let (sender, receiver) = sync_channel(1);
        let settings =
            QlogSettings { folder: PathBuf::from("/nowhere"), peers: Vec::new(), files: 3, file_max: 1 << 20 };
        let qlog = Arc::new(Qlog {
            settings,
            peers: RwLock::default(),
            open: AtomicU32::new(0),
            sender,
            thread: Mutex::new(None),
        });
        let cells = Arc::new(WorkerCells::default());
        let (first, second) = (qlog.begin("01", &cells).expect("room"), qlog.begin("02", &cells).expect("room"));
        first.record(b"{}");
        first.flush();
        second.record(b"{}");
        second.record(b"{}");
        second.flush();
        assert_eq!(cells.counters.qlog_records_dropped_total.get(), 2);
        drop(receiver);
        // The beginning is lost, and so is what would follow it.
        second.record(b"{}");
        assert_eq!(cells.counters.qlog_records_dropped_total.get(), 3);
    }

    #[test]
    fn networks_are_bounded() {
        let (folder, qlog, _) = made(2, 1 << 20);
        let network = |at: usize| format!("10.0.{at}.0/24").parse::<Cidr>().expect("it is one");
        for at in 0..limits::QLOG_PEERS_MAX {
            assert_eq!(qlog.tell(network(at), true), Ok(false));
        }
        assert!(qlog.tell(network(limits::QLOG_PEERS_MAX), true).is_err());
        assert_eq!(qlog.tell(network(0), true), Ok(true));
        assert!(qlog.wants("10.0.0.9".parse().expect("an address")));
        assert_eq!(qlog.tell(network(0), false), Ok(true));
        assert!(!qlog.wants("10.0.0.9".parse().expect("an address")));
        assert_eq!(qlog.tell(network(limits::QLOG_PEERS_MAX), true), Ok(false));
        drop(qlog);
        let _ = fs::remove_dir_all(folder);
    }
}
