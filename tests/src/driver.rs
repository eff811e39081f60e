//! Running a test once for each driver, within a bound of time, and alone where it must be.

use std::fs::{File, OpenOptions};
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::netns::Net;

/// How the engine under test talks to the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Driver {
    Uring,
    Epoll,
}

impl Driver {
    pub fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }

    /// `PENSTOCK_TEST_DRIVER` names the only one that is wanted; all are unless it does.
    fn is_wanted(self) -> bool {
        match std::env::var("PENSTOCK_TEST_DRIVER") {
            Ok(only) if !only.is_empty() => only == self.name(),
            _ => true,
        }
    }
}

/// Whether a test bears company.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// It runs beside others.
    Shared,
    /// It measures, or needs most of the machine.
    Alone,
}

/// Declares tests that run once for each driver: `shared` ones beside others, `alone` ones with the machine to themselves.
#[macro_export]
macro_rules! on_each_driver {
    ($(#[doc = $doc:literal])* alone fn $name:ident($driver:ident) $body:block $($rest:tt)*) => {
        $crate::on_each_driver!(@one [$($doc)*] Alone $name $driver $body);
        $crate::on_each_driver!($($rest)*);
    };
    ($(#[doc = $doc:literal])* fn $name:ident($driver:ident) $body:block $($rest:tt)*) => {
        $crate::on_each_driver!(@one [$($doc)*] Shared $name $driver $body);
        $crate::on_each_driver!($($rest)*);
    };
    (@one [$($doc:literal)*] $sharing:ident $name:ident $driver:ident $body:block) => {
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports, reason = "each test uses what it uses")]
            use super::*;

            fn body($driver: $crate::Driver) $body

            #[test]
            fn uring() {
                $crate::on_driver($crate::Driver::Uring, $crate::Sharing::$sharing, body);
            }

            #[test]
            fn epoll() {
                $crate::on_driver($crate::Driver::Epoll, $crate::Sharing::$sharing, body);
            }
        }
    };
    () => {};
}

/// Runs `body` for `driver`, if that driver is wanted.
pub fn on_driver(driver: Driver, sharing: Sharing, body: fn(Driver)) {
    if driver.is_wanted() {
        run(sharing, move || body(driver));
    } else {
        println!("not wanted: driver {}", driver.name());
    }
}

/// Runs `body` within [`TEST_MAX`].
pub fn run(sharing: Sharing, body: impl FnOnce() + Send + 'static) {
    // Outside of the bound: how long others take is not this test's fault.
    let lock = lock(sharing);
    let (done, wait) = channel::<()>();
    let thread = std::thread::Builder::new()
        .name(std::thread::current().name().unwrap_or("test").to_owned())
        .spawn(move || {
            let _done = done;
            let _net = Net::enter_if_wanted();
            body();
        })
        .expect("a thread for the test");
    if wait.recv_timeout(TEST_MAX) == Err(RecvTimeoutError::Timeout) {
        panic!("the test hangs: it is not over after {} s", TEST_MAX.as_secs());
    }
    let outcome = thread.join();
    drop(lock);
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// No test takes longer unless it hangs.
const TEST_MAX: Duration = Duration::from_secs(100);

/// Over all test processes of this machine, whichever runner started them.
fn lock(sharing: Sharing) -> File {
    let path = std::env::temp_dir().join("penstock-tests.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match sharing {
        Sharing::Shared => file.lock_shared(),
        Sharing::Alone => file.lock(),
    }
    .expect("a lock on a file of our own");
    file
}
