//! Programs of Debian's unstable release, in a folder under `target/`: those of the stable one know no HTTP/3.
//!
//! apt resolves and downloads them with its own settings and keys, as if nothing were installed; dpkg-deb unpacks. Nothing is installed, no
//! package's script runs, and nobody has to be root. A program runs on the libraries in the folder, through the folder's own dynamic loader,
//! and sees the machine's files otherwise: a chroot would need root, and configurations with two names for every file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::{Outcome, place, shell};

const SOURCE: &str = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main";

/// A program whose package has its name, downloaded when it is not in the folder. Returns a script that becomes it.
pub fn program(name: &str) -> Outcome<PathBuf> {
    let folder = place::target_directory()?.join("sid");
    let script = folder.join("bin").join(name);
    if !script.is_file() {
        fetch(&folder, name).map_err(|why| format!("{why}; Debian's mirror may be out of reach of apt here"))?;
        write_script(&folder, name, &script)?;
    }
    Ok(script)
}

fn fetch(folder: &Path, package: &str) -> Outcome {
    static REFRESHED: OnceLock<bool> = OnceLock::new();
    if let Some(missing) = ["apt-get", "dpkg-deb"].into_iter().find(|tool| place::program(tool).is_none()) {
        return Err(format!("{package} with HTTP/3 is taken from Debian, and there is no {missing} here"));
    }
    let apt = folder.join("apt");
    for inner in ["lists/partial", "archives/partial"] {
        made(&apt.join(inner))?;
    }
    written(&apt.join("status"), "")?;
    written(&apt.join("sources"), &format!("deb {SOURCE}\n"))?;
    if !*REFRESHED.get_or_init(|| shell::run(apt_get(&apt).args(["update", "-q"])).is_ok()) {
        return Err("apt-get could not read the packages of Debian's unstable release".to_owned());
    }
    shell::run(apt_get(&apt).args(["install", "-y", "-q", "--download-only", "--no-install-recommends", package]))?;
    let files = std::fs::read_dir(apt.join("archives")).map_err(|error| format!("{}: {error}", apt.display()))?;
    let archives = files.flatten().map(|entry| entry.path());
    for file in archives.filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        if !shell::succeeds(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder)) {
            return Err(format!("dpkg-deb could not unpack {}", file.display()));
        }
    }
    Ok(())
}

/// apt with its ordinary configuration, but for where it keeps things.
fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-o").arg(format!("Dir::State={}", apt.display()));
    command.arg("-o").arg(format!("Dir::State::status={}", apt.join("status").display()));
    command.arg("-o").arg(format!("Dir::Cache={}", apt.display()));
    command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", apt.join("sources").display()));
    // The user that apt gives downloads to as root may not write here.
    command.args(["-o", "Dir::Etc::sourceparts=-", "-o", "APT::Sandbox::User="]);
    command.stdout(Stdio::null());
    command
}

/// The script replaces itself by the program, so that a process has the id that was started.
fn write_script(folder: &Path, name: &str, script: &Path) -> Outcome {
    let libraries = folder.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let loader = std::fs::read_dir(&libraries)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with("ld-linux")))
        .ok_or_else(|| format!("no dynamic loader in {}", libraries.display()))?;
    let program = ["usr/sbin", "usr/bin"]
        .map(|inner| folder.join(inner).join(name))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| format!("Debian's package {name} brought no program of that name"))?;
    made(&folder.join("bin"))?;
    written(script, &text(&loader, &libraries, &program))?;
    shell::run(Command::new("chmod").arg("+x").arg(script))
}

/// The machine's configuration of OpenSSL is for another version of it.
fn text(loader: &Path, libraries: &Path, program: &Path) -> String {
    let [loader, libraries, program] = [loader, libraries, program].map(Path::display);
    format!("#!/bin/sh\nOPENSSL_CONF=/dev/null exec '{loader}' --library-path '{libraries}' '{program}' \"$@\"\n")
}

fn made(folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn written(file: &Path, text: &str) -> Outcome {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_on_the_libraries_of_its_folder() {
        let folder = std::env::temp_dir().join(format!("penstock-sid-{}", std::process::id()));
        let script = folder.join("bin/tool");
        let libraries = folder.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
        made(&libraries).unwrap();
        made(&folder.join("usr/bin")).unwrap();
        assert!(write_script(&folder, "tool", &script).unwrap_err().contains("no dynamic loader"));
        // In place of a loader, what tells its arguments.
        written(&libraries.join("ld-linux-test.so.2"), "#!/bin/sh\necho \"$OPENSSL_CONF|$@\"\n").unwrap();
        assert!(shell::succeeds(Command::new("chmod").arg("+x").arg(libraries.join("ld-linux-test.so.2"))));
        assert!(write_script(&folder, "tool", &script).unwrap_err().contains("no program of that name"));
        written(&folder.join("usr/bin/tool"), "").unwrap();
        write_script(&folder, "tool", &script).unwrap();
        let told = Command::new(&script).args(["-v", "a b"]).output().unwrap().stdout;
        let (libraries, program) = (libraries.display(), folder.join("usr/bin/tool"));
        let expected = format!("/dev/null|--library-path {libraries} {} -v a b\n", program.display());
        assert_eq!(String::from_utf8(told).unwrap(), expected);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
