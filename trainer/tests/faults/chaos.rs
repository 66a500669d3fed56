//! Random faults from a seed: `make chaos`.

use std::{
    env,
    str::FromStr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use datjob_data::random::Stream;
use rustix::io::Errno;

use crate::{
    fault::Fault,
    job::Job,
    privileges::with_privileges,
    storage_fault::StorageFault,
    undisturbed::{PODS, epochs_lasting, manifest, undisturbed},
};

/// Time in addition to the deadline of a fault, in which a job must make progress again.
const SLACK: Duration = Duration::from_secs(10);
/// Time that jobs train without a fault.
const TRAINING: Duration = Duration::from_secs(14);
/// Most faults of a job.
const MOST_FAULTS: u32 = 3;
/// Longest time until the next fault, and longest fault, in milliseconds.
const LONGEST_PAUSE: u32 = 8_000;
const LONGEST_FAULT: u32 = 20_000;

/// Faults of storage. Only rank 0, in pod 0, writes checkpoints.
const STORAGE_FAULTS: [StorageFault; 6] = [
    StorageFault { call: "write", path: "/checkpoint-", error: Some(Errno::NOSPC) },
    StorageFault { call: "write", path: "/checkpoint-", error: Some(Errno::IO) },
    StorageFault { call: "write", path: "/checkpoint-", error: None },
    StorageFault { call: "open", path: "/data/train/", error: Some(Errno::STALE) },
    StorageFault { call: "open", path: "/data/train/", error: Some(Errno::IO) },
    StorageFault { call: "open", path: "/data/train/3/", error: None },
];

/// The value of a variable that is set.
fn variable<T: FromStr>(name: &str) -> Option<T> {
    let value = env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("invalid {name} {value:?}; expected a number")))
}

#[test]
#[ignore = "runs for CHAOS_MINUTES, by `make chaos`"]
fn chaos_from_a_seed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = variable("CHAOS_SEED").unwrap_or(now);
    let minutes: u64 = variable("CHAOS_MINUTES").unwrap_or(15);
    with_privileges(|| {
        println!("CHAOS_SEED={seed} CHAOS_MINUTES={minutes}");
        let started = Instant::now();
        let epochs = epochs_lasting(TRAINING);
        undisturbed(epochs);
        let mut number = 0;
        while started.elapsed() < Duration::from_mins(minutes) {
            number += 1;
            // The faults of a job depend on the seed and its number, and not on the time of earlier jobs.
            run_job(number, epochs, started, &mut Stream::order(seed, number));
        }
        println!("{number} jobs have the outcome of a job without a fault; CHAOS_SEED={seed}");
    });
}

/// Runs a job with faults. Checks that it goes on after each one, and that its outcome is that of a job without a fault, in which
/// every epoch trained on each image once.
fn run_job(number: u64, epochs: u32, started: Instant, random: &mut Stream) {
    let expected = undisturbed(epochs);
    let mut faults: Vec<Planned> = (0..=random.below(MOST_FAULTS)).map(|_| Planned::draw(random)).collect();
    let mut storage_fault = None;
    if random.below(3) == 0 {
        let fault = STORAGE_FAULTS[random.below(STORAGE_FAULTS.len() as u32) as usize];
        let pod = if fault.call == "write" { 0 } else { random.below(PODS) };
        storage_fault = Some((pod, fault));
        faults[0].fault = Fault::Storage;
        faults[0].pod = pod;
    }
    let mut job = Job::start_with_fault(&manifest(epochs), storage_fault);
    for Planned { fault, pod, pause, time } in faults {
        job.observe_for(pause);
        if job.has_succeeded() {
            break;
        }
        let [at, seconds] = [started.elapsed(), time].map(|time| time.as_secs_f64());
        match storage_fault.filter(|_| fault == Fault::Storage) {
            Some((_, storage)) => {
                println!("{at:7.1} s: job {number}, pod {pod}: {storage:?} for {seconds:.1} s");
            }
            None => println!("{at:7.1} s: job {number}, pod {pod}: {fault:?}, {seconds:.1} s if it lasts"),
        }
        job.watch().restart();
        let struck = fault.strike(&mut job, pod, time);
        // The first move may be that of a step before the fault.
        job.wait_for_moves(2, fault.deadline(time, expected.startup) + SLACK);
        let may_miss = job.has_succeeded() || fault.needs_traffic_control();
        assert!(struck || may_miss, "{fault:?} did not strike pod {pod}");
    }
    job.watch().restart();
    job.wait_for_moves(u32::MAX, expected.startup + SLACK);
    assert_eq!(job.finish(), expected.outcome, "job {number}");
    println!("{:7.1} s: job {number} has the expected outcome", started.elapsed().as_secs_f64());
}

/// A fault, its pod and its time.
struct Planned {
    fault: Fault,
    pod: u32,
    /// Time before the fault.
    pause: Duration,
    /// Time of the fault, if it lasts.
    time: Duration,
}

impl Planned {
    fn draw(random: &mut Stream) -> Self {
        let mut milliseconds = |longest| Duration::from_millis(u64::from(random.below(longest)));
        let (pause, time) = (milliseconds(LONGEST_PAUSE), milliseconds(LONGEST_FAULT));
        let fault = Fault::ALL[random.below(Fault::ALL.len() as u32) as usize];
        Self { fault, pod: random.below(PODS), pause, time }
    }
}
