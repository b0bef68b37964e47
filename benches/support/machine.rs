//! What Linux says about a process under `/proc`.

use std::{fs, time::Duration};

use super::Outcome;

/// Clock ticks a second in `/proc/<pid>/stat`: 100 on every Linux, whatever the kernel's own is.
const TICKS_PER_SECOND: u32 = 100;

/// Seconds of CPU that a process has used, user and system, all threads, to 10 ms. `process` is an id or `self`.
pub(crate) fn cpu_seconds(process: &str) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses, which may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (Some(user), Some(system)) = (ticks.next(), ticks.next()) else {
        return Err("/proc/<pid>/stat has too few fields".into());
    };
    Ok(f64::from(user? + system?) / f64::from(TICKS_PER_SECOND))
}

/// Whether a process has ended and was not waited for yet: its figures still stand.
pub(crate) fn has_ended(process: &str) -> Outcome<bool> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let state = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().next());
    Ok(matches!(state, Some("Z" | "X")))
}

/// Megabytes (10⁶) that a process has resident now, and had at most: `VmRSS`, `VmHWM`.
pub(crate) fn memory_mb(process: &str) -> Outcome<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let value = |name: &str| -> Outcome<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("/proc/<pid>/status lacks a line")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024.0 / 1e6)
    };
    Ok((value("VmRSS")?, value("VmHWM")?))
}

/// Cores, processor and memory, and the share of the cores that others have used in the last minute.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("", |(_, name)| name.trim());
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default().split_whitespace().nth(1).and_then(|kib| kib.parse().ok());
    let memory: f64 = memory.unwrap_or(0.0) / 1024.0 / 1024.0;
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("?");
    format!("{cores} cores, {model}, {memory:.0} GiB; load average before the start: {load}")
}

/// Time since some moment.
#[derive(Clone, Copy)]
pub(crate) struct Watch(std::time::Instant);

impl Watch {
    /// Started now.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
