//! temporary
use hubferry_simulation::{Job, Scale, live};
#[test]
#[allow(clippy::all, clippy::disallowed_methods, clippy::print_stdout)]
fn one() {
    let get = |n: &str, d: u64| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
    let (first, count, trace) = (get("S", 0), get("N", 1), get("T", 0));
    let job = if std::env::var("J").ok().as_deref() == Some("delivery") { Job::Delivery } else { Job::Import };
    let start = std::time::Instant::now();
    let mut bad = std::collections::BTreeMap::<&str, Vec<u64>>::new();
    for seed in first..first + count {
        let lived = live(job, seed, &Scale::FULL);
        if trace == 1 {
            println!("{}", lived.trace.text());
        }
        if let Err(f) = lived.end {
            println!("seed {seed}: {}: {}", f.invariant, &f.seen.chars().take(700).collect::<String>());
            bad.entry(f.invariant).or_default().push(seed);
        }
    }
    println!("{bad:?}\n{:?} per world", start.elapsed() / count as u32);
}

#[test]
#[allow(clippy::all, clippy::disallowed_methods, clippy::print_stdout)]
fn bugs() {
    use hubferry::mutate::{Bug, switch};
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("BUG").unwrap_or_default();
    for bug in Bug::ALL.iter().filter(|b| only.is_empty() || only.split(',').any(|n| n == b.name())) {
        let start = std::time::Instant::now();
        let mut found = None;
        'jobs: for seed in 0..60 {
            for job in [Job::Delivery, Job::Import] {
                switch(Some(*bug));
                let lived = live(job, seed, &Scale::FULL);
                switch(None);
                if let Err(f) = lived.end {
                    found = Some((job, seed, f.invariant, f.seen.chars().take(160).collect::<String>()));
                    break 'jobs;
                }
            }
        }
        println!("{}: {found:?} {:?}", bug.name(), start.elapsed());
    }
}
