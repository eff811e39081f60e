//! What the machine gives this process: processors, their time, and the size of its pages.

use std::io;

/// Numbers of the processors that taskset, cpusets and systemd left to this thread (`sched_getaffinity(2)`), ascending.
pub fn allowed_cpus() -> io::Result<Vec<u16>> {
    // SAFETY: `cpu_set_t` is plain data for which all zeroes is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for its size; 0 names this thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` was filled in, and every number asked for is below CPU_SETSIZE.
    Ok((0..libc::CPU_SETSIZE as u16).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu.into(), &set) }).collect())
}

/// Binds this thread to one processor.
pub fn pin_to(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: as in `allowed_cpus`; `cpu` is below CPU_SETSIZE.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// CPU time that this thread has used, in nanoseconds.
pub fn thread_cpu_nanos() -> u64 {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `used` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut used) };
    used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64
}

/// Memory in small pages from now on (`PR_SET_THP_DISABLE`): a heap that grows by 2 MiB for each few kilobytes used would
/// make thousands of idle connections cost several times what they hold.
pub fn small_pages() {
    // SAFETY: no memory is involved. Refused nowhere but in a sandbox, and then memory is merely rounded up.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}
