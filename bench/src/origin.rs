//! The origin behind every proxy: the same process for all of them, on the load generator's CPU.
//!
//! Swapping it for one of ours touches this file only: something that serves `/100`, `/16k` and `/1m` and can be asked for its processes.

use std::net::SocketAddr;
use std::path::Path;

use xtask::{Outcome, place};

use crate::process::{self, Running, Scratch, words};

pub(crate) struct Origin {
    running: Running,
    pub(crate) address: SocketAddr,
}

impl Origin {
    pub(crate) fn start(scratch: &Scratch, cpu: usize) -> Outcome<Self> {
        let nginx =
            place::program("nginx").ok_or("the origin needs nginx: apt-get install nginx")?;
        let folder = scratch.folder("origin")?;
        let address = process::free_address()?;
        // A path is a file's name; the small one is answered from the configuration, without a file.
        process::write_file(&folder.join("16k"), vec![b'x'; 16 << 10])?;
        process::write_file(&folder.join("1m"), vec![b'x'; 1 << 20])?;
        let file = folder.join("nginx.conf");
        process::write_file(&file, configuration(&folder, address))?;
        let mut running = Running::start(
            "the origin",
            cpu,
            &words([&nginx, &"-p", &folder, &"-c", &file]),
            &[],
            &folder.join("log"),
        )?;
        running.wait_until_it_answers(address, "/100")?;
        Ok(Self { running, address })
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.running.processes()
    }
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let (root, body) = (folder.display(), "x".repeat(100));
    format!(
        "\
daemon off;
user root;
pid {root}/pid;
error_log {root}/error.log crit;
worker_processes 1;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16 inactive=600s;
    open_file_cache_valid 600s;
    default_type text/plain;
    client_body_temp_path {root}/body;
    server {{
        listen {address} backlog=4096;
        root {root};
        location = /100 {{ return 200 \"{body}\"; }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_small_body_has_its_length() {
        let text = super::configuration(
            std::path::Path::new("/tmp/o"),
            "127.0.0.1:9000".parse().unwrap(),
        );
        assert!(text.contains(&format!("return 200 \"{}\";", "x".repeat(100))));
        assert!(text.contains("listen 127.0.0.1:9000 backlog=4096;"));
    }
}
