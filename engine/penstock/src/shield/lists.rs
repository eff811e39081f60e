//! Which networks are allowed and denied, from all that say so, as one table.
//!
//! What holds: a network of the allow list is never denied, whoever denies it or a part of it. So a wrong line in a file of abusers locks nobody out whom
//! the configuration lets in. The kernel's tables decide by the longest network, so what an allowed one covers is left out of them.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::Now;

use super::program::Listed;
use crate::limits;
use crate::snapshot::{Cidr, Shield, read_networks};

/// All that says whom to allow and to deny.
#[derive(Debug, Default)]
pub(super) struct Lists {
    allow: Vec<Cidr>,
    deny: Vec<Cidr>,
    files: Vec<File>,
    /// The operator's, with when they end.
    told: BTreeMap<Cidr, Now>,
}

/// What the kernel is to have.
pub(super) type Table = BTreeMap<Cidr, Listed>;

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// What it was when it was read, or could not be.
    stamp: Option<Stamp>,
    networks: Vec<Cidr>,
}

/// What tells a file that has changed: when it was written, which one it is, how long.
type Stamp = (i64, i64, u64, u64);

impl Lists {
    /// Those of the configuration; its files are read by [`look`](Self::look).
    #[must_use]
    pub(super) fn new(shield: &Shield) -> Self {
        let file = |path: &PathBuf| File { path: path.clone(), stamp: None, networks: Vec::new() };
        Self {
            allow: shield.allow.iter().copied().collect(),
            deny: shield.deny.iter().copied().collect(),
            files: shield.deny_files.iter().map(file).collect(),
            told: BTreeMap::new(),
        }
    }

    /// Those of another configuration, with what operators have said and files that it names too have said last.
    pub(super) fn succeed(&mut self, shield: &Shield) {
        let Self { files, told, .. } = std::mem::replace(self, Self::new(shield));
        self.told = told;
        for file in files {
            if let Some(same) = self.files.iter_mut().find(|same| same.path == file.path) {
                *same = file;
            }
        }
    }

    /// Reads files that have changed, and forgets what has ended. Tells whether anything did, and adds what there is to say to `news`.
    pub(super) fn look(&mut self, now: Now, news: &mut Vec<String>) -> bool {
        let before = self.told.len();
        self.told.retain(|_, until| *until > now);
        let mut changed = self.told.len() != before;
        for file in &mut self.files {
            let stamp = stamp(&file.path);
            if stamp.is_some() && stamp == file.stamp {
                continue;
            }
            match read(&file.path) {
                Ok(networks) => {
                    news.push(format!("shield: {} networks in {}", networks.len(), file.path.display()));
                    file.networks = networks;
                    changed = true;
                }
                // Said once: a file that is not there has no stamp, and is looked for again in silence.
                Err(why) if stamp.is_some() || file.stamp.is_some() => {
                    news.push(format!(
                        "shield: {}: {why}: its {} old networks stay",
                        file.path.display(),
                        file.networks.len()
                    ));
                }
                Err(_) => {}
            }
            file.stamp = stamp;
        }
        changed
    }

    /// The operator denies a network until `until`, or (`None`) no longer. Tells until when it was denied.
    pub(super) fn tell(&mut self, network: Cidr, until: Option<Now>) -> Option<Now> {
        match until {
            Some(until) => self.told.insert(network, until),
            None => self.told.remove(&network),
        }
    }

    /// The operator's.
    pub(super) fn told(&self) -> impl Iterator<Item = (&Cidr, Now)> {
        self.told.iter().map(|(network, until)| (network, *until))
    }

    /// Whether the configuration or a file denies it, too.
    #[must_use]
    pub(super) fn is_written(&self, network: &Cidr) -> bool {
        self.deny.contains(network) || self.files.iter().any(|file| file.networks.contains(network))
    }

    /// The allowed network that covers one, if any does.
    #[must_use]
    pub(super) fn allowed(&self, network: &Cidr) -> Option<&Cidr> {
        self.allow.iter().find(|allowed| allowed.covers(network))
    }

    /// What the kernel is to have.
    #[must_use]
    pub(super) fn table(&self) -> Table {
        let files = self.files.iter().flat_map(|file| &file.networks);
        let denied = self.deny.iter().chain(files).chain(self.told.keys());
        let denied = denied.filter(|network| self.allowed(network).is_none());
        let denied = denied.map(|network| (*network, Listed::Deny));
        denied.chain(self.allow.iter().map(|network| (*network, Listed::Allow))).collect()
    }
}

/// What must be done to a table to make it another: each network that differs, with what it is to be.
pub(super) fn difference<'a>(old: &'a Table, new: &'a Table) -> impl Iterator<Item = (Cidr, Option<Listed>)> + 'a {
    let gone = old.keys().filter(|network| !new.contains_key(network)).map(|network| (*network, None));
    let other = new.iter().filter(|(network, listed)| old.get(network) != Some(listed));
    gone.chain(other.map(|(network, listed)| (*network, Some(*listed))))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.ino(), file.size()))
}

fn read(path: &Path) -> Result<Vec<Cidr>, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(limits::SHIELD_FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let length = read.map_err(|error| error.to_string())?;
    if length as u64 > limits::SHIELD_FILE_BYTES_MAX {
        return Err(format!("more than {} bytes", limits::SHIELD_FILE_BYTES_MAX));
    }
    read_networks(&text).map_err(|(line, wrong)| format!("line {line}: {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn lists(allow: &[&str], deny: &[&str]) -> Lists {
        let of = |texts: &[&str]| texts.iter().map(|text| cidr(text)).collect();
        Lists { allow: of(allow), deny: of(deny), ..Lists::default() }
    }

    #[test]
    fn what_is_allowed_is_never_denied() {
        let lists = lists(&["10.0.0.0/8", "2001:db8::/32"], &["10.1.0.0/16", "10.0.0.0/8", "2001:db8::1", "0.0.0.0/0"]);
        let wanted = [
            (cidr("0.0.0.0/0"), Listed::Deny),
            (cidr("10.0.0.0/8"), Listed::Allow),
            (cidr("2001:db8::/32"), Listed::Allow),
        ];
        assert_eq!(lists.table(), wanted.into());
        assert_eq!(lists.allowed(&cidr("10.1.0.0/16")), Some(&cidr("10.0.0.0/8")));
    }

    #[test]
    fn an_operators_word_ends() {
        let mut lists = lists(&[], &["192.0.2.0/24"]);
        let (at, mut news) = (Now::from_nanos(5), Vec::new());
        assert_eq!(lists.tell(cidr("198.51.100.0/24"), Some(at)), None);
        assert_eq!(lists.tell(cidr("203.0.113.0/24"), Some(Now::NEVER)), None);
        assert_eq!(lists.table().len(), 3);
        assert!(!lists.look(Now::from_nanos(4), &mut news));
        assert!(lists.look(at, &mut news) && news.is_empty());
        assert_eq!(lists.told().map(|(network, _)| *network).collect::<Vec<_>>(), [cidr("203.0.113.0/24")]);
        assert_eq!(lists.tell(cidr("203.0.113.0/24"), None), Some(Now::NEVER));
        assert_eq!(lists.table(), [(cidr("192.0.2.0/24"), Listed::Deny)].into());
    }

    #[test]
    fn a_difference_makes_one_table_the_other() {
        let table = |deny: &[&str], allow: &[&str]| lists(allow, deny).table();
        for (old, new) in [
            (table(&[], &[]), table(&["10.0.0.0/8"], &["192.0.2.1"])),
            (table(&["10.0.0.0/8", "::1"], &[]), table(&["10.0.0.0/8"], &["::1"])),
            (table(&["10.0.0.0/8"], &["::1"]), table(&[], &[])),
            (table(&["10.0.0.0/8"], &["::1"]), table(&["10.0.0.0/8"], &["::1"])),
        ] {
            let mut made = old.clone();
            for (network, listed) in difference(&old, &new) {
                assert_ne!(made.get(&network).copied(), listed, "nothing is said twice");
                match listed {
                    Some(listed) => drop(made.insert(network, listed)),
                    None => drop(made.remove(&network)),
                }
            }
            assert_eq!(made, new);
        }
    }

    #[test]
    fn files_are_read_when_they_change_and_never_half() {
        let folder = std::env::temp_dir().join(format!("penstock-lists-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("deny");
        let file = File { path: path.clone(), stamp: None, networks: Vec::new() };
        let mut lists = Lists { files: vec![file], ..Lists::default() };
        let look = |lists: &mut Lists| {
            let mut news = Vec::new();
            (lists.look(Now::from_nanos(1), &mut news), news.join("\n"))
        };
        assert_eq!(look(&mut lists), (false, String::new()), "it is not there yet");
        std::fs::write(&path, "# whom\n203.0.113.0/24\n\n2001:db8::/32 # and these\n").unwrap();
        let (changed, news) = look(&mut lists);
        assert!(changed && news.contains("2 networks"), "{news}");
        assert_eq!(look(&mut lists), (false, String::new()));
        assert!(lists.is_written(&cidr("203.0.113.0/24")));
        std::fs::write(&path, "203.0.113.0/24\n10.0.0.1/8\n").unwrap();
        let (changed, news) = look(&mut lists);
        assert!(!changed && news.contains("line 2: ") && news.contains("2 old networks stay"), "{news}");
        assert_eq!(look(&mut lists), (false, String::new()), "it is said once");
        std::fs::remove_file(&path).unwrap();
        assert!(look(&mut lists).1.contains("2 old networks stay"));
        assert_eq!(look(&mut lists), (false, String::new()));
        assert_eq!(lists.table().len(), 2);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
