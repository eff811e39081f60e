//! A table of fake sources, each with the messages expected of it.

use super::*;

fn messages(path: &str, source: &str, longer: &[(&str, usize, &str)]) -> Vec<String> {
    let mut report = Report::default();
    check_file(path, source, longer, &mut report);
    report.findings.iter().map(ToString::to_string).collect()
}

/// A path, a source, and what is said of it.
const TABLE: &[(&str, &str, &[&str])] = &[
    // unsafe: where
    ("engine/proto/src/lib.rs", "#![forbid(unsafe_code)]\n// unsafe in prose\n", &[]),
    (
        "engine/proto/src/lib.rs",
        "fn f() { unsafe { g() } }\n",
        &["engine/proto/src/lib.rs:1: `unsafe` outside engine/ring/, ebpf/"],
    ),
    // unsafe: explained
    ("engine/ring/src/a.rs", "// SAFETY: it is ours.\nunsafe { g() };\n", &[]),
    ("engine/ring/src/a.rs", "// SAFETY: it is ours,\n// see there.\nlet x =\n    unsafe { g() };\n", &[]),
    (
        "engine/ring/src/a.rs",
        "let y = 1;\nunsafe { g() };\n",
        &["engine/ring/src/a.rs:2: `unsafe` without a `// SAFETY:` comment right above it"],
    ),
    (
        "engine/ring/src/a.rs",
        "// SAFETY: for the first only.\nunsafe { g() };\nunsafe { h() };\n",
        &["engine/ring/src/a.rs:3: `unsafe` without a `// SAFETY:` comment right above it"],
    ),
    (
        "engine/ring/src/a.rs",
        "unsafe impl Send for X {}\n",
        &["engine/ring/src/a.rs:1: `unsafe` without a `// SAFETY:` comment right above it"],
    ),
    (
        "engine/ring/src/a.rs",
        "/// Does.\n///\n/// # Safety\n/// `p` is valid.\n#[inline]\npub unsafe fn f(p: *const u8) {}\n",
        &[],
    ),
    (
        "engine/ring/src/a.rs",
        "/// Does.\npub unsafe fn f(p: *const u8) {}\n",
        &["engine/ring/src/a.rs:2: `unsafe fn` without a `# Safety` section that tells what the caller must uphold"],
    ),
    ("engine/ring/src/a.rs", "struct V { drop: unsafe fn(*const ()) }\n", &[]),
    (
        "engine/ring/src/a.rs",
        "// SAFETY: passes on.\nunsafe impl GlobalAlloc for A {\n    unsafe fn alloc(&self) {\n    }\n}\n",
        &[],
    ),
    // clocks
    ("engine/ring/src/clock.rs", "let t = Instant::now();\n", &[]),
    ("bench/src/suite.rs", "let t = Instant::now();\n", &[]),
    (
        "engine/policy/src/a.rs",
        "let t = Instant::now();\n",
        &["engine/policy/src/a.rs:1: `Instant::now` outside engine/ring: take `now` from the ring"],
    ),
    (
        "engine/traffic/src/a.rs",
        "let t = std::time::SystemTime::now();\n",
        &["engine/traffic/src/a.rs:1: `SystemTime::now` outside engine/ring: take `now` from the ring"],
    ),
    // put off
    ("xtask/src/a.rs", "fn f() { todo!() }\n", &["xtask/src/a.rs:1: `todo!` does not belong in what is committed"]),
    (
        "xtask/src/a.rs",
        "fn f() { dbg!(1); let s = \"todo!\"; }\n",
        &["xtask/src/a.rs:1: `dbg!` does not belong in what is committed"],
    ),
    // layering
    (
        "engine/penstock/src/conn/mod.rs",
        "use crate::{limits, session::Session};\n",
        &["engine/penstock/src/conn/mod.rs:1: `conn` names `session`, which is above it"],
    ),
    ("engine/penstock/src/conn/mod.rs", "use crate::{limits, tls, conn::Stream};\n", &[]),
    (
        "engine/penstock/src/cache/join.rs",
        "use super::super::qos::Class;\n",
        &[
            "engine/penstock/src/cache/join.rs:1: `cache` names `qos`, its neighbour on the same floor: what both need lives below them",
        ],
    ),
    (
        "engine/penstock/src/attic.rs",
        "\n",
        &["engine/penstock/src/attic.rs:1: room `attic` has no floor: give it one in xtask/src/tidy/layers.rs"],
    ),
    // pages
    ("docs/a.md", "# A\n\n```sh\n# a comment\n```\n", &[]),
    ("docs/a.md", "## A\n", &["docs/a.md:1: a page has exactly one `# Title`; this one has 0"]),
    ("docs/a.md", "# A\n\n# B\n", &["docs/a.md:3: a page has exactly one `# Title`; this one has 2"]),
];

#[test]
fn sources_and_what_is_said_of_them() {
    let later = concat!("FIX", "ME");
    let put_off = format!("// {later}: tomorrow\n");
    let one_machine = format!("const P: &str = \"{}x\";\n", concat!("/wo", "rk/"));
    let elsewhere = format!("// https://example.org{}x and a/b{}c\n", concat!("/wo", "rk/"), concat!("/ro", "ot/"));
    for (path, source, expected) in TABLE {
        assert_eq!(messages(path, source, &[]), *expected, "{source}");
    }
    assert_eq!(messages("docs/a.toml", &put_off, &[]), [format!("docs/a.toml:1: `{later}`: fix it, or file an issue")]);
    assert_eq!(
        messages("tests/src/a.rs", &one_machine, &[]),
        [format!("tests/src/a.rs:1: `{}` is a path of one machine", concat!("/wo", "rk/"))]
    );
    assert_eq!(messages("tests/src/a.rs", &elsewhere, &[]), Vec::<String>::new());
}

#[test]
fn length_is_a_finding_unless_the_table_allows_it() {
    let function = |lines: usize| format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2));
    assert_eq!(messages("xtask/src/a.rs", &function(100), &[]), Vec::<String>::new());
    assert_eq!(
        messages("xtask/src/a.rs", &function(101), &[]),
        ["xtask/src/a.rs:1: xtask/src/a.rs fn long has 101 lines, more than 100: two things are in it"]
    );
    let allowed: &[(&str, usize, &str)] = &[("xtask/src/a.rs fn long", 101, "a table")];
    assert_eq!(messages("xtask/src/a.rs", &function(101), allowed), Vec::<String>::new());
    assert_eq!(
        messages("xtask/src/a.rs", &function(102), allowed),
        ["xtask/src/a.rs:1: xtask/src/a.rs fn long grew to 102 lines; its exception ends at 101"]
    );
    let file = "\n".repeat(601);
    assert_eq!(
        messages("xtask/src/a.rs", &file, &[]),
        ["xtask/src/a.rs:1: xtask/src/a.rs has 601 lines, more than 600: two things are in it"]
    );
}

#[test]
fn functions_are_measured_from_their_name_to_their_last_brace() {
    let code: Vec<String> = "trait T {\n    fn declared(&self) -> [u8; 4];\n    fn given(&self) {\n        if x { y }\n    }\n}\nlet f: fn(u8) = g;".lines().map(str::to_owned).collect();
    assert_eq!(functions(&code), [("given".to_owned(), 2, 3)]);
}

#[test]
fn this_repository_can_be_walked() {
    let report = check(&crate::place::root()).unwrap();
    assert!(report.files > 10);
}
