//! The order of floors inside `penstock` (DESIGN §3), as a table. Crates keep their own order: the compiler sees to that.
//!
//! A room may name rooms on lower floors and the shared ones; not its neighbours on the same floor, and none above.

/// Rooms and their floors, the top one first.
const FLOORS: &[(&str, u8)] = &[
    ("main", 0),
    ("lib", 0),
    ("command", 1),
    ("demo", 2),
    ("start", 2),
    ("control", 3),
    ("admin", 4),
    ("engine", 5),
    ("worker", 6),
    ("oversight", 6),
    ("listen", 7),
    ("session", 8),
    ("exchange", 9),
    ("upstream", 10),
    ("cache", 10),
    ("qos", 10),
    ("conn", 11),
    ("quic", 12),
    ("tls", 13),
    // Beside the path of a request: they name no room but the shared ones.
    ("steer", 14),
    ("shield", 14),
    ("samehost", 14),
    ("balance", 14),
    ("afxdp", 14),
    ("cores", 14),
    ("service", 14),
    ("bpf", 15),
];

/// Rooms that everyone may read, and which read only one another.
const SHARED: &[&str] = &["snapshot", "limits", "telemetry"];

/// The room of a file of `engine/penstock/src`: its first folder, or its own name. `path` is relative to `src`.
pub(super) fn room_of(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Whether the table knows a room.
pub(super) fn known(room: &str) -> bool {
    SHARED.contains(&room) || FLOORS.iter().any(|(name, _)| *name == room)
}

/// Why `from` may not name `to`, if so. Words that are no room (types at the crate's root, say) are nobody's concern.
pub(super) fn forbidden(from: &str, to: &str) -> Option<String> {
    let floor = |room: &str| FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor);
    if from == to || SHARED.contains(&to) {
        return None;
    }
    let below = floor(to)?;
    if SHARED.contains(&from) {
        return Some(format!("`{from}` is read by everyone and may name only {}, not `{to}`", SHARED.join(", ")));
    }
    let here = floor(from)?;
    if here < below {
        None
    } else if here == below {
        Some(format!("`{from}` names `{to}`, its neighbour on the same floor: what both need lives below them"))
    } else {
        Some(format!("`{from}` names `{to}`, which is above it"))
    }
}

/// The crate's rooms that a file's code names, each with the line (from 0) where it does. `depth` is the file's distance from the crate's
/// root (1 for a room's own file, 2 for a file inside it), which tells what `super::super` means.
pub(super) fn named(code: &[String], depth: usize) -> Vec<(usize, String)> {
    let text = code.join("\n");
    let mut found = Vec::new();
    let mut prefixes = vec!["crate::".to_owned(), "penstock::".to_owned()];
    // Deeper chains come from inline modules; they name the crate's root as well.
    prefixes.extend((depth..depth + 3).map(|count| "super::".repeat(count)));
    for prefix in prefixes {
        for (at, _) in text.match_indices(&prefix) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let line = text[..at].matches('\n').count();
            found.extend(first_words(&text[at + prefix.len()..]).into_iter().map(|word| (line, word)));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The first identifier after a path prefix, or, of `{a::b, c}`, every branch's first.
fn first_words(text: &str) -> Vec<String> {
    let word =
        |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = text.strip_prefix('{') else {
        return vec![word(text)];
    };
    let (mut words, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' | ',' if depth == 0 => {
                words.push(word(&group[start..at]));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_name_whom() {
        for (from, to) in [
            ("main", "worker"),
            ("start", "control"),
            ("worker", "listen"),
            ("exchange", "cache"),
            ("upstream", "conn"),
            ("tls", "snapshot"),
            ("control", "engine"),
            ("snapshot", "limits"),
            ("conn", "conn"),
            ("conn", "Anything"),
        ] {
            assert_eq!(forbidden(from, to), None, "{from} → {to}");
        }
        for (from, to, why) in [
            ("conn", "upstream", "above"),
            ("upstream", "cache", "same floor"),
            ("session", "listen", "above"),
            ("engine", "control", "above"),
            ("cores", "steer", "same floor"),
            ("telemetry", "conn", "only snapshot"),
        ] {
            assert!(forbidden(from, to).is_some_and(|told| told.contains(why)), "{from} → {to}");
        }
    }

    #[test]
    fn rooms_of_files() {
        assert_eq!(room_of("listen/tcp.rs"), "listen");
        assert_eq!(room_of("worker.rs"), "worker");
        assert!(known("limits") && known("tls") && !known("attic"));
    }

    #[test]
    fn names_in_use_lines_paths_and_supers() {
        let code = |text: &str| text.split('\n').map(str::to_owned).collect::<Vec<_>>();
        let names = |text: &str, depth| {
            named(&code(text), depth).into_iter().map(|(line, name)| format!("{line}:{name}")).collect::<Vec<_>>()
        };
        assert_eq!(
            names("use crate::{conn::{self, Stream}, tls};\nlet x = crate::worker::now();", 1),
            ["0:conn", "0:tls", "1:worker"]
        );
        assert_eq!(names("use crate::{\n    conn,\n};", 1), ["0:conn"]);
        assert_eq!(names("use super::worker;", 1), ["0:worker"]);
        assert_eq!(names("use super::worker;", 2), Vec::<String>::new());
        assert_eq!(names("use super::super::worker;", 2), ["0:worker"]);
        assert_eq!(names("$crate::worker", 1), Vec::<String>::new());
    }
}
