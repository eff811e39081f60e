//! `penstock reload`: a running engine reads its configuration file anew.

use super::{ADMIN_DEFAULT, FAILED, admin_address, client, refuse, say};
use crate::limits;
use crate::snapshot::Address;
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is lost by it: who is connected stays connected, what is under way ends as it began, and the next request goes by the new \
file. A file that is wrong changes nothing."
)]
pub(super) struct ReloadArgs {
    /// Tells what would change, and changes nothing
    #[arg(long)]
    dry_run: bool,
    /// The engine's admin endpoint: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = ADMIN_DEFAULT, value_parser = admin_address)]
    admin: Address,
    /// Prints the answer as it came
    #[arg(long)]
    json: bool,
}

pub(super) fn reload(args: &ReloadArgs) -> ExitCode {
    let asked = json!({ "dry_run": args.dry_run });
    match client::ask_within(&args.admin, "/reload", Some(&asked), limits::RELOAD_MAX) {
        Err(why) => refuse(FAILED, why.trim_end()),
        Ok(done) if args.json => say(&format!("{done:#}\n")),
        Ok(done) => say(&told(&done)),
    }
}

fn told(done: &Value) -> String {
    let mut text = done["warnings"].as_str().unwrap_or_default().to_owned();
    let changes: Vec<_> = done["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let number = &done["configuration"];
    let _ = match (changes.is_empty(), done["adopted"] == true) {
        (true, _) => writeln!(text, "configuration {number} holds: nothing has changed"),
        (false, true) => writeln!(text, "configuration {number} holds"),
        (false, false) => writeln!(text, "configuration {number} would become another one"),
    };
    for line in changes {
        let _ = writeln!(text, "  {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_changes_is_told_line_by_line() {
        let done =
            json!({ "configuration": 3, "adopted": true, "changes": ["+ pool `b`", "~ route `api`"], "warnings": "" });
        assert_eq!(told(&done), "configuration 3 holds\n  + pool `b`\n  ~ route `api`\n");
        let same = json!({ "configuration": 3, "adopted": false, "changes": [], "warnings": "careful\n" });
        assert_eq!(told(&same), "careful\nconfiguration 3 holds: nothing has changed\n");
    }
}
