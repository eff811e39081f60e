//! Files that may be replaced while they are in use.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files, and what they were when they were read.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// When they were read.
    read: Stamps,
    /// At the last look.
    seen: Stamps,
}

/// What tells a file that has changed: when it was written, which one it is, how long.
type Stamps = Vec<Option<(i64, i64, u64, u64)>>;

impl Watched {
    /// To be made before they are read: a change in between is seen by the next look then.
    pub fn new<'a>(files: impl Iterator<Item = &'a Path>) -> Self {
        let read: Stamps = files.map(stamp).collect();
        Self { seen: read.clone(), read }
    }

    /// Whether they are others than were read, and have stood still since the last look: a pair that is written one file after the other is
    /// read when both have been there for a while.
    pub fn have_changed<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> bool {
        let before = std::mem::replace(&mut self.seen, files.map(stamp).collect());
        let settled = self.seen == before && self.seen != self.read;
        if settled {
            self.read.clone_from(&self.seen);
        }
        settled
    }
}

fn stamp(path: &Path) -> Option<(i64, i64, u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.ino(), file.size()))
}
