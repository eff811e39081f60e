//! The floors are this very binary under another name.

use std::path::Path;

use super::{Launch, Site};
use crate::process::words;

pub(super) fn launch(program: &Path, name: &str, site: &Site<'_>) -> Launch {
    Launch::new(words([&program, &name, &"--listen", &site.listen.to_string(), &"--to", &site.to.to_string()]))
}
