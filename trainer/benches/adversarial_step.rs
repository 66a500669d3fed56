//! Images per second of one adversarial training step (ResNet-18, 32×32 pixels, 64 images per worker, PGD-10) with one and
//! two workers, and the share of gradient communication that overlaps with the backward pass.
//!
//! Workers are processes, as in a job, and share the cores of the machine. `make bench` runs it. In the same run it measures
//! the same step in eager PyTorch (`pytorch_step.py`), with the Python at `DATJOB_BENCH_PYTHON`. If the variable is not set,
//! it prints that the comparison is skipped.

use std::{
    env,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use datjob_c10d::{GlooDevice, GlooOptions, ProcessGroup, TcpStore};
use datjob_trainer::placement::Placement;
use serde::{Deserialize, Serialize};

mod step;

use step::{Step, median};

const BATCH: usize = 64;
const WARM_UP: usize = 2;
const STEPS: usize = 6;
const TIMEOUT: Duration = Duration::from_mins(10);
/// Environment variable with the assignment of a worker process, as JSON.
const ASSIGNMENT_VARIABLE: &str = "DATJOB_BENCH_ROLE";

#[derive(Serialize, Deserialize)]
struct Assignment {
    rank: usize,
    world_size: usize,
    port: u16,
    threads: usize,
}

/// Median times of a step on rank 0, in seconds.
#[derive(Serialize, Deserialize)]
struct StepTimes {
    step: f64,
    attack: f64,
    communication: f64,
    hidden: f64,
}

fn main() {
    // Command-line arguments are cargo's options for its benchmark harness, so the assignment is in a variable.
    if let Ok(assignment) = env::var(ASSIGNMENT_VARIABLE) {
        return run_worker(&serde_json::from_str(&assignment).expect("the assignment is JSON"));
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!(
        "ResNet-18, 3×32×32, {BATCH} images per worker, PGD-10, f32, CPU, {cores} cores, median of {STEPS} steps"
    );
    let python = env::var("DATJOB_BENCH_PYTHON").ok();
    if python.is_none() {
        println!("No comparison with PyTorch: DATJOB_BENCH_PYTHON is not set (`make bench` sets it).");
    }
    println!(
        "{:>7} {:>8} {:>10} {:>9} {:>9} {:>15} {:>8}",
        "workers", "threads", "images/s", "step", "attack", "communication", "hidden"
    );
    for world_size in [1, 2] {
        let threads = (cores / world_size).max(1);
        let StepTimes { step, attack, communication, hidden } = measure(world_size, threads);
        let (communication, share) = match world_size {
            // A single worker does not communicate.
            1 => ("-".to_owned(), "-".to_owned()),
            _ => {
                (format!("{:.0} ms", communication * 1e3), format!("{:.0} %", 100.0 * hidden / communication))
            }
        };
        println!(
            "{world_size:>7} {threads:>8} {:>10.1} {step:>7.2} s {attack:>7.2} s {communication:>15} {share:>8}",
            (world_size * BATCH) as f64 / step,
        );
        if let Some(python) = &python {
            let (version, pytorch_step) = measure_pytorch(python, world_size, threads);
            println!(
                "{:>7} {threads:>8} {:>10.1} {pytorch_step:>7.2} s    PyTorch {version}; DatJob is {:.2} times as fast",
                "",
                (world_size * BATCH) as f64 / pytorch_step,
                pytorch_step / step,
            );
        }
    }
}

/// Runs the PyTorch script. Returns its version and the median seconds of a step.
fn measure_pytorch(python: &str, world_size: usize, threads: usize) -> (String, f64) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/pytorch_step.py");
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let outputs = run_all((0..world_size).map(|rank| {
        let arguments = [rank, world_size, port.into(), threads, BATCH, WARM_UP, STEPS];
        let mut command = Command::new(python);
        command.arg(script).args(arguments.map(|argument| argument.to_string())).arg("cpu");
        // Python must not load the libtorch of this program.
        command.env_remove("LD_LIBRARY_PATH").env_remove("LIBTORCH");
        command
    }));
    let text = String::from_utf8(outputs).expect("text");
    let (version, seconds) = text.trim().split_once(' ').expect("a version and seconds");
    (version.to_owned(), seconds.parse().expect("seconds"))
}

/// Runs the processes of a world concurrently and returns the output of rank 0, the first one.
fn run_all(commands: impl Iterator<Item = Command>) -> Vec<u8> {
    let workers: Vec<Child> =
        commands.map(|mut command| command.stdout(Stdio::piped()).spawn().expect("a worker")).collect();
    let mut outputs = workers.into_iter().map(|worker| {
        let output = worker.wait_with_output().expect("a worker's output");
        assert!(output.status.success(), "a worker failed");
        output.stdout
    });
    let rank_0 = outputs.next().expect("rank 0");
    outputs.for_each(drop);
    rank_0
}

fn measure(world_size: usize, threads: usize) -> StepTimes {
    let store = TcpStore::host(Ipv4Addr::LOCALHOST.into(), 0, TIMEOUT).expect("a store");
    let output = run_all((0..world_size).map(|rank| {
        let assignment = Assignment { rank, world_size, port: store.port(), threads };
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.env(ASSIGNMENT_VARIABLE, serde_json::to_string(&assignment).expect("JSON"));
        command
    }));
    serde_json::from_slice(&output).expect("step times")
}

fn run_worker(assignment: &Assignment) {
    let Assignment { rank, world_size, port, threads } = *assignment;
    tch::set_num_threads(threads as i32);
    datjob_c10d::set_log_level(datjob_c10d::LogLevel::Fatal);
    let store = TcpStore::connect("127.0.0.1", port, TIMEOUT).expect("the store");
    let options = GlooOptions { device: GlooDevice::Hostname("127.0.0.1".into()), name: "bench".into() };
    let group = ProcessGroup::gloo(&store, rank, world_size, TIMEOUT, &options).expect("a group");

    let placement = Placement::Cpu;
    let mut step = Step::new(placement, &group, BATCH);
    let (mut steps, mut attacks) = (Vec::new(), Vec::new());
    for index in 0..WARM_UP + STEPS {
        group.barrier().expect("a barrier");
        let start = placement.record_event().expect("an event");
        let attack_end = step.run();
        let end = placement.record_event().expect("an event");
        if index >= WARM_UP {
            steps.push(start.elapsed_time(&end).expect("a time").as_secs_f64());
            attacks.push(start.elapsed_time(&attack_end).expect("a time").as_secs_f64());
        }
    }
    if rank == 0 {
        let mean = step.reducer.statistics().expect("statistics").mean;
        let times = StepTimes {
            step: median(steps),
            attack: median(attacks),
            communication: mean.backward_communication.as_secs_f64(),
            hidden: mean.backward_overlap.as_secs_f64(),
        };
        println!("{}", serde_json::to_string(&times).expect("JSON"));
    }
}
