//! What each program costs the kernel's verifier: it gives up at a million instructions, and another kernel's may find fewer ways alike than this one's.

mod granted;

use std::path::PathBuf;

use aya::EbpfLoader;
use aya::programs::Program;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use self::granted::granted;

/// Instructions that are followed at the most, over all ways through a program (`BPF_COMPLEXITY_LIMIT_INSNS`, Linux 5.2).
const GIVES_UP_AT: u32 = 1_000_000;

/// Of that, what a program of ours may take. `balance-nat` takes 575,000.
const TAKES_MAX: u32 = GIVES_UP_AT / 10 * 6;

/// The object that is refused without CAP_PERFMON (docs/decisions/0037).
const NEEDS_MORE: &str = "shield-cookies.o";

/// Loads a program of an object: how many instructions the verifier has followed. `None`: the kernel is older than 5.16, and does not tell.
fn followed(program: &mut Program) -> Result<Option<u32>, String> {
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::SkReuseport(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkMsg(program) => program.load(),
        other => panic!("a program of another kind: {other:?}"),
    };
    loaded.map_err(|error| penstock::bpf::refusal("program", &error))?;
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// From now on this thread may load programs and attach them, and no more: without CAP_PERFMON the verifier takes fewer ways for alike, and follows up to twelve times as many.
fn weaken() -> rustix::io::Result<()> {
    let kept = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
    let held = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: held.effective & kept, ..held })
}

fn objects() -> Vec<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ebpf"));
    let rooms = std::fs::read_dir(root).unwrap().filter_map(|room| std::fs::read_dir(room.ok()?.path()).ok());
    let files = rooms.flatten().filter_map(|file| Some(file.ok()?.path()));
    let mut objects: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "o")).collect();
    // What is told to need more comes first, while there is more.
    objects.sort_by_key(|path| (!path.ends_with(NEEDS_MORE), path.clone()));
    objects
}

#[test]
fn no_program_comes_near_what_the_verifier_follows_at_the_most() {
    let objects = objects();
    assert!(objects.len() >= 8 && objects[0].ends_with(NEEDS_MORE), "{objects:?}");
    let mut over = Vec::new();
    for object in objects {
        let name = object.file_name().unwrap().display();
        if !object.ends_with(NEEDS_MORE) {
            weaken().expect("capabilities may always be given up");
        }
        let bytes = std::fs::read(&object).unwrap();
        let loaded = EbpfLoader::new().btf(None).load(&bytes);
        let Some(mut ebpf) = granted(loaded.map_err(|error| penstock::bpf::refusal("maps", &error))) else { return };
        for (program, loaded) in ebpf.programs_mut() {
            let Some(followed) = granted(followed(loaded)) else { return };
            let Some(followed) = followed else {
                println!("SKIPPED: the kernel does not tell");
                return;
            };
            println!("{name:20} {program:20} {followed:>8}");
            if followed > TAKES_MAX {
                over.push(format!("{name} {program}: {followed}"));
            }
        }
    }
    assert!(over.is_empty(), "of {TAKES_MAX} instructions, these take more: {over:?}");
}
