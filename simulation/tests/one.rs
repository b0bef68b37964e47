//! temporary
use hubferry::mutate::{self, Bug};
use hubferry_simulation::{Job, Scale, live};
#[test]
#[allow(clippy::all, clippy::disallowed_methods, clippy::print_stdout)]
fn one() {
    let text = |n: &str| std::env::var(n).unwrap_or_default();
    let get = |n: &str, d: u64| text(n).parse().unwrap_or(d);
    let (first, count, trace, stop) = (get("S", 0), get("N", 1), get("T", 0), get("STOP", 0));
    let job = *Job::ALL.iter().find(|job| job.name() == text("J")).unwrap_or(&Job::Capture);
    let bugs: Vec<Option<Bug>> = match text("BUG").as_str() {
        "" => vec![None],
        list => {
            list.split(',').map(|name| Some(*Bug::ALL.iter().find(|bug| bug.name() == name).expect(name))).collect()
        }
    };
    for bug in bugs {
        mutate::switch(bug);
        let start = std::time::Instant::now();
        let mut bad = std::collections::BTreeMap::<&str, Vec<u64>>::new();
        for seed in first..first + count {
            let at = std::time::Instant::now();
            let lived = live(job, seed, &Scale::FULL);
            if trace == 1 {
                println!("{}", lived.trace.text());
            }
            if trace == 2 {
                println!("seed {seed} {:?} {:?}", at.elapsed(), lived.trace.hash());
            }
            if let Err(f) = lived.end {
                println!(
                    "seed {seed}: {}: {}",
                    f.invariant,
                    &f.seen.chars().take(get("W", 600) as usize).collect::<String>()
                );
                bad.entry(f.invariant).or_default().push(seed);
                if stop == 1 {
                    break;
                }
            }
        }
        println!(
            "== {:?} {bad:?} {:?} in all, {:?} per world",
            bug.map(Bug::name),
            start.elapsed(),
            start.elapsed() / count as u32
        );
    }
}
