//! Whole runs under a seed: worlds in which hubferry's jobs fail, die and overlap, and what must hold afterwards.
//!
//! A seed makes a world: what stands in the accounts, the files, limits, latencies and fault rates. In it the real jobs run against
//! the simulators in virtual time while people edit, answers are lost and processes are killed between any two steps. The oracle is a
//! plain model that knows nothing of the jobs' code. The same seed is the same world, step by step.

#![allow(clippy::large_futures, reason = "a world is one future on a thread of its own, made once")]
#![allow(
    clippy::unwrap_used,
    reason = "a world in which something impossible happens has failed: a panic is caught, and told"
)]

pub mod capture;
pub mod cloud;
pub mod delivery;
pub mod dice;
pub mod import;
pub mod logs;
pub mod scale;
pub mod shrink;
pub mod sync;
pub mod watch;
pub mod world;

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

pub use scale::{Failure, Job, Lived, Scale, Trace};

/// What is told of a world that panicked.
pub const PANIC: &str = "no world panics";

/// Lives through the world that this seed makes, as far as `scale` goes. A panic is a failure like any other.
///
/// It takes real processor time, and no other: time is virtual.
pub fn live(job: Job, seed: u64, scale: &Scale) -> Lived {
    match job {
        Job::Import => import::live(seed, scale),
        Job::Delivery => delivery::live(seed, scale),
        Job::Capture => capture::live(seed, scale),
        Job::Sync => sync::live(seed, scale),
    }
}

/// Runs a world in virtual time on a runtime of its own. What was traced until then is kept where it panics.
pub fn lived_through<F>(world: impl FnOnce(Rc<RefCell<Trace>>) -> F) -> Lived
where
    F: Future<Output = Result<(), Failure>>,
{
    let trace = Rc::new(RefCell::new(Trace::default()));
    let ours = trace.clone();
    let life = AssertUnwindSafe(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async { world(ours).await })
    });
    let end = catch_unwind(life).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure { invariant: PANIC, seen: text.unwrap_or_else(|| "a panic without words".to_owned()) })
    });
    Lived { trace: trace.take(), end }
}
