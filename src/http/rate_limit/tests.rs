use super::*;
use crate::clock::{Rng, VirtualClock};
use async_trait::async_trait;
use futures_util::future::join_all;
use std::collections::VecDeque;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn limiter(limits: &Limits) -> (Rc<RateLimiter>, Rc<VirtualClock>) {
    let clock = Rc::new(VirtualClock::starting_at(at("2026-11-22T22:00:00Z")));
    (Rc::new(RateLimiter::new(limits, clock.clone(), Rc::new(LocalBudget::default()))), clock)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

/// HubSpot's side: counts arrivals in a rolling window, refused ones included.
struct Window {
    max: usize,
    arrivals: RefCell<VecDeque<Duration>>,
    refused: RefCell<u32>,
    accepted: RefCell<u32>,
}

impl Window {
    fn arrive(&self, now: Duration) -> bool {
        let mut arrivals = self.arrivals.borrow_mut();
        while arrivals.front().is_some_and(|first| now - *first >= Duration::from_secs(10)) {
            arrivals.pop_front();
        }
        arrivals.push_back(now);
        let fits = arrivals.len() <= self.max;
        *if fits { self.accepted.borrow_mut() } else { self.refused.borrow_mut() } += 1;
        fits
    }
}

/// Runs `workers` callers for `seconds`; returns accepted and refused calls.
async fn run(max: u32, latency: Duration, workers: usize, seconds: u64) -> (u32, u32) {
    let (limiter, clock) = limiter(&Limits { burst: Some(max), ..Limits::default() });
    let window = Window {
        max: max as usize,
        arrivals: RefCell::default(),
        refused: RefCell::default(),
        accepted: RefCell::default(),
    };
    let rng = Rng::seeded(7);
    let end = Duration::from_secs(seconds);
    join_all((0..workers).map(|_| async {
        loop {
            limiter.acquire(Bucket::Burst).await.unwrap();
            if clock.elapsed() >= end {
                return;
            }
            // The way there takes 10 to 40 ms.
            clock.sleep(Duration::from_millis(10).mul_f64(1.0 + 3.0 * rng.fraction())).await;
            if !window.arrive(clock.elapsed()) {
                limiter.throttled(Bucket::Burst, None);
            }
            clock.sleep(latency.mul_f64(0.7 + 0.6 * rng.fraction())).await;
        }
    }))
    .await;
    (window.accepted.take(), window.refused.take())
}

#[tokio::test(start_paused = true)]
async fn uses_97_percent_of_a_rolling_window_without_a_single_refusal() {
    for max in [190, 100] {
        for latency in [50, 300, 3_000] {
            let (accepted, refused) = run(max, Duration::from_millis(latency), 128, 120).await;
            let ceiling = max * 12;
            assert_eq!(refused, 0, "{max} at {latency} ms");
            assert!(f64::from(accepted) >= 0.97 * f64::from(ceiling), "{max} at {latency} ms: {accepted} of {ceiling}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn very_high_limits_are_used_too_though_timers_are_coarse() {
    for max in [1_000, 2_500, 10_000] {
        let (accepted, refused) = run(max, Duration::from_millis(50), 256, 30).await;
        assert_eq!(refused, 0, "{max}");
        assert!(f64::from(accepted) >= 0.95 * f64::from(max * 3), "{max}: {accepted} in 30 s");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_time_is_not_saved_up() {
    let (limiter, clock) = limiter(&Limits { burst: Some(100), ..Limits::default() });
    limiter.acquire(Bucket::Burst).await.unwrap();
    clock.sleep(Duration::from_secs(60)).await;
    let start = clock.elapsed();
    for _ in 0..20 {
        limiter.acquire(Bucket::Burst).await.unwrap();
    }
    assert!(clock.elapsed() - start > Duration::from_millis(1_800), "{:?}", clock.elapsed() - start);
}

#[tokio::test(start_paused = true)]
async fn slots_are_given_in_the_order_of_asking() {
    let (limiter, _) = limiter(&Limits::default());
    let order = RefCell::new(Vec::new());
    join_all((0..20).map(|n| {
        let (limiter, order) = (&limiter, &order);
        async move {
            limiter.acquire(Bucket::Burst).await.unwrap();
            order.borrow_mut().push(n);
        }
    }))
    .await;
    assert_eq!(order.take(), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_learned_from_the_answers_unless_it_is_set() {
    let told = headers(&[("x-hubspot-ratelimit-max", "190"), ("x-hubspot-ratelimit-interval-milliseconds", "10000")]);
    for (limits, expected) in [(Limits::default(), 190), (Limits { burst: Some(150), ..Limits::default() }, 150)] {
        let (limiter, _) = limiter(&limits);
        limiter.observe(Bucket::Burst, &told);
        limiter.observe(Bucket::Burst, &headers(&[("x-hubspot-ratelimit-max", "many")]));
        limiter.observe(Bucket::Associations, &headers(&[("x-hubspot-ratelimit-max", "5")]));
        assert_eq!(limiter.lanes.of(Bucket::Burst).state.borrow().limit, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_429_everybody_waits_slows_down_and_recovers() {
    let (limiter, clock) = limiter(&Limits { burst: Some(100), ..Limits::default() });
    limiter.acquire(Bucket::Burst).await.unwrap();
    limiter.throttled(Bucket::Burst, Some(Duration::from_secs(4)));
    limiter.throttled(Bucket::Burst, None);
    limiter.acquire(Bucket::Burst).await.unwrap();
    assert!(clock.elapsed() >= Duration::from_secs(4));
    let rate = async |calls: u32| {
        let start = clock.elapsed();
        for _ in 0..calls {
            limiter.acquire(Bucket::Burst).await.unwrap();
        }
        f64::from(calls) / (clock.elapsed() - start).as_secs_f64()
    };
    let slow = rate(20).await;
    assert!(slow < 9.8, "{slow}");
    rate(400).await;
    let recovered = rate(50).await;
    assert!(recovered > 9.7, "{recovered}");
    assert_eq!(limiter.counts().throttled, 2);
    // Searches have a limit of their own.
    limiter.throttled(Bucket::Search, Some(Duration::from_secs(30)));
    let start = clock.elapsed();
    limiter.acquire(Bucket::Burst).await.unwrap();
    assert!(clock.elapsed() - start < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn the_days_reserve_is_left_to_others_until_the_accounts_midnight() {
    let (limiter, clock) = limiter(&Limits::default());
    limiter.set_time_zone(TimeZone::get("America/New_York").unwrap());
    let told = [("x-hubspot-ratelimit-daily", "1000"), ("x-hubspot-ratelimit-daily-remaining", "101")];
    limiter.observe(Bucket::Burst, &headers(&told));
    limiter.acquire(Bucket::Burst).await.unwrap();
    let error = limiter.acquire(Bucket::Burst).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::DailyLimit, codes::DAILY_LIMIT));
    assert!(error.message().contains("2026-11-23T05:00:00Z"), "{error}");
    clock.sleep(Duration::from_secs(7 * 3_600 + 1)).await;
    limiter.acquire(Bucket::Burst).await.unwrap();
    limiter.daily_spent();
    assert!(limiter.acquire(Bucket::Search).await.is_err());
}

/// Grants blocks of half a second, after a round trip.
struct Remote {
    inner: LocalBudget,
    clock: Rc<dyn Clock>,
    reservations: RefCell<u32>,
}

#[async_trait(?Send)]
impl Budget for Remote {
    fn block(&self, _bucket: Bucket) -> Duration {
        Duration::from_millis(500)
    }
    async fn reserve(&self, bucket: Bucket, want: u32, pace: Pace, now: Duration) -> Result<Grant> {
        *self.reservations.borrow_mut() += 1;
        let grant = self.inner.reserve(bucket, want, pace, now).await;
        self.clock.sleep(Duration::from_millis(20)).await;
        grant
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_are_reserved_ahead_of_need() {
    let clock: Rc<dyn Clock> = Rc::new(VirtualClock::starting_at(at("2026-11-22T22:00:00Z")));
    let remote = Rc::new(Remote { inner: LocalBudget::default(), clock: clock.clone(), reservations: RefCell::new(0) });
    let limiter = RateLimiter::new(&Limits { burst: Some(190), ..Limits::default() }, clock.clone(), remote.clone());
    for _ in 0..1_870 {
        limiter.acquire(Bucket::Burst).await.unwrap();
    }
    let took = clock.elapsed().as_secs_f64();
    assert!((99.5..101.5).contains(&took), "{took}");
    assert!(*remote.reservations.borrow() < 220, "{}", remote.reservations.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_used_in_time_is_over_and_counts_as_no_call() {
    for (burst, in_time, late) in [(190, 240, 260), (4, 1_260, 1_300)] {
        let (limiter, clock) = limiter(&Limits { burst: Some(burst), ..Limits::default() });
        let permit = limiter.acquire(Bucket::Burst).await.unwrap();
        clock.sleep(Duration::from_millis(in_time)).await;
        assert!(limiter.is_current(&permit), "{burst} calls in ten seconds");
        assert_eq!(limiter.counts().total, 1);
        clock.sleep(Duration::from_millis(late - in_time)).await;
        assert!(!limiter.is_current(&permit), "{burst} calls in ten seconds");
        assert_eq!(limiter.counts().total, 0);
    }
}
