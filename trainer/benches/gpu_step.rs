//! Images per second of one adversarial training step on a GPU (ResNet-18, 32×32 pixels, PGD-10), in float32 and with
//! TF32, and of the same step in eager PyTorch (`pytorch_step.py`) on the same GPU in the same run.
//!
//! `make bench-gpu` runs it. Without a GPU it prints SKIPPED. `DATJOB_BENCH_PYTHON` is the path of the Python. Arguments are
//! numbers of images per step, instead of 128 and 1024.

use std::{env, net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use datjob_c10d::{Cuda, CudaBackend, GlooDevice, GlooOptions, ProcessGroup, TcpStore, allow_tf32};
use datjob_trainer::placement::Placement;

mod step;

use step::{Step, median};

const BATCHES: [usize; 2] = [128, 1024];
const WARM_UP: usize = 5;
const STEPS: usize = 20;
const TIMEOUT: Duration = Duration::from_mins(10);

fn main() {
    let cuda = match Placement::cuda() {
        Ok(Placement::Cuda(cuda)) => cuda,
        Ok(Placement::Cpu) => unreachable!("CUDA was requested"),
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let device = cuda.device_properties(0).expect("a device");
    println!(
        "ResNet-18, 3×32×32, PGD-10, {} (driver for CUDA {}), CUDA {}, libtorch {}, NCCL world of one, median of {STEPS} steps",
        device.name,
        device.driver_version,
        device.runtime_version,
        datjob_trainer::LIBTORCH_VERSION,
    );
    let python = env::var("DATJOB_BENCH_PYTHON").ok();
    if python.is_none() {
        println!("No comparison with PyTorch: set DATJOB_BENCH_PYTHON to a Python with PyTorch.");
    }
    let chosen: Vec<usize> = env::args().filter_map(|argument| argument.parse().ok()).collect();
    let batches = if chosen.is_empty() { BATCHES.to_vec() } else { chosen };
    let rows = batches.iter().flat_map(|&batch| [("fp32", false, batch), ("TF32", true, batch)]);
    println!("{:>6} {:>6} {:>10} {:>10} {:>10}", "images", "mode", "images/s", "step", "attack");
    let print = |batch: usize, mode: &str, step: f64, remark: String| {
        println!("{batch:>6} {mode:>6} {:>10.0} {:>7.2} ms {remark}", batch as f64 / step, step * 1e3);
    };
    // PyTorch first: this process would keep the memory that it has used.
    let pytorch_step = |(mode, tf32, batch)| {
        let (version, step) = measure_pytorch(python.as_deref()?, batch, tf32);
        print(batch, mode, step, format!("              PyTorch {version}"));
        Some(step)
    };
    let pytorch_steps: Vec<Option<f64>> = rows.clone().map(pytorch_step).collect();
    tch::Cuda::cudnn_set_benchmark(true);
    let group = single_rank_group(cuda);
    for ((mode, tf32, batch), pytorch_step) in rows.zip(pytorch_steps) {
        allow_tf32(tf32);
        let StepTimes { step, attack } = measure(cuda, &group, batch);
        let ratio =
            pytorch_step.map_or_else(String::new, |other| format!(", {:.2} times as fast", other / step));
        print(batch, mode, step, format!("{:>7.2} ms    DatJob{ratio}", attack * 1e3));
    }
}

fn single_rank_group(cuda: Cuda) -> ProcessGroup {
    let store = TcpStore::host(Ipv4Addr::LOCALHOST.into(), 0, TIMEOUT).expect("a store");
    let options = GlooOptions { device: GlooDevice::Hostname("127.0.0.1".into()), name: "bench".into() };
    ProcessGroup::with_cuda(cuda, CudaBackend::Nccl, &store, 0, 1, TIMEOUT, &options).expect("a group")
}

/// Median times in seconds, measured by CUDA events.
struct StepTimes {
    step: f64,
    attack: f64,
}

fn measure(cuda: Cuda, group: &ProcessGroup, batch: usize) -> StepTimes {
    let placement = Placement::Cuda(cuda);
    let mut step = Step::new(placement, group, batch);
    let (mut steps, mut attacks) = (Vec::new(), Vec::new());
    for index in 0..WARM_UP + STEPS {
        cuda.synchronize(0).expect("the device");
        let start = placement.record_event().expect("an event");
        let attack_end = step.run();
        let end = placement.record_event().expect("an event");
        if index >= WARM_UP {
            steps.push(start.elapsed_time(&end).expect("a time").as_secs_f64());
            attacks.push(start.elapsed_time(&attack_end).expect("a time").as_secs_f64());
        }
    }
    StepTimes { step: median(steps), attack: median(attacks) }
}

/// Runs the PyTorch script. Returns its version and the median seconds of a step.
fn measure_pytorch(python: &str, batch: usize, tf32: bool) -> (String, f64) {
    // A bundle of prebuilt binaries sets the variable; otherwise the script is in the source tree.
    let script = env::var_os("DATJOB_BENCH_SCRIPT").map_or_else(
        || [env!("CARGO_MANIFEST_DIR"), "benches", "pytorch_step.py"].iter().collect(),
        PathBuf::from,
    );
    let arguments = [0, 1, 0, 8, batch, WARM_UP, STEPS].map(|number| number.to_string());
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .arg(if tf32 { "cuda-tf32" } else { "cuda" })
        // Python must not load the libtorch of this program.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .expect("Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (version, seconds) = text.trim().split_once(' ').expect("a version and seconds");
    (version.to_owned(), seconds.parse().expect("seconds"))
}
