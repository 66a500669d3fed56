//! What takes a GPU. On a machine without one each test prints why it is skipped; what can be tested there is in the unit
//! tests of `placement` and `datjob_c10d::Cuda`. `make test-gpu` runs these; docs/gpu.md says how, also where neither
//! network nor toolchain is.

use std::{
    env, fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use datjob_adversarial::{
    attack,
    evaluate::{self, EvalAttack, Evaluation},
    model::{Mode, Network},
    objective,
    shard::Shard,
    tensors,
};
use datjob_api::{
    report::FailureReason,
    training::{Architecture, CrossEntropy, Norm, Objective, Pgd, ThreatModel},
};
use datjob_c10d::{
    Cuda, CudaBackend, GlooDevice, GlooOptions, ProcessGroup, ReduceOp, Reducer, ReducerOptions, TcpStore,
};
use datjob_data::{Images, random};
use datjob_trainer::{engine::TrainError, placement::Placement};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

#[path = "common/folder.rs"]
mod folder;
#[path = "common/squares.rs"]
mod squares;

const TIMEOUT: Duration = Duration::from_mins(1);

/// The GPU of this process, one test at a time; nothing, with the reason printed, where there is none.
fn gpu() -> Option<(Cuda, MutexGuard<'static, ()>)> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    match Placement::cuda() {
        Ok(Placement::Cuda(cuda)) => Some((cuda, lock)),
        Ok(Placement::Cpu) => unreachable!("CUDA was requested"),
        Err(error) => {
            println!("SKIPPED: {error}");
            assert!(env::var_os("DATJOB_REQUIRE_GPU").is_none(), "DATJOB_REQUIRE_GPU is set: {error}");
            None
        }
    }
}

fn alone(cuda: Cuda, backend: CudaBackend) -> ProcessGroup {
    let store = TcpStore::host(Ipv4Addr::LOCALHOST.into(), 0, TIMEOUT).unwrap();
    let options = GlooOptions { device: GlooDevice::Hostname("127.0.0.1".into()), name: "test".into() };
    ProcessGroup::with_cuda(cuda, backend, &store, 0, 1, TIMEOUT, &options).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    for (found, expected) in values(found).into_iter().zip(values(expected)) {
        let scale = expected.abs().max(1.0);
        assert!((found - expected).abs() <= tolerance * scale, "{what}: expected {expected}, got {found}");
    }
}

#[test]
fn a_device_says_what_it_is_and_how_its_memory_is_used() {
    let Some((cuda, _lock)) = gpu() else { return };
    let device = cuda.device_properties(0).unwrap();
    println!("{device:?}");
    assert!(!device.name.is_empty() && device.capability.0 >= 7, "{device:?}");
    let before = cuda.memory(0).unwrap();
    let held = Tensor::zeros([64 << 20], (Kind::Float, Device::Cuda(0)));
    cuda.synchronize(0).unwrap();
    let during = cuda.memory(0).unwrap();
    assert!(during.allocated >= before.allocated + (256 << 20), "{before:?} {during:?}");
    drop(held);
    let after = cuda.memory(0).unwrap();
    assert!(after.allocated <= before.allocated && after.peak_allocated >= during.allocated, "{after:?}");
}

#[test]
fn a_world_of_one_reduces_by_nccl() {
    let Some((cuda, _lock)) = gpu() else { return };
    let group = alone(cuda, CudaBackend::Nccl);
    for device in [Device::Cuda(0), Device::Cpu] {
        let tensor = Tensor::from_slice(&[1.5_f32, -2.0]).to_device(device);
        group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
        group.broadcast(&tensor, 0).unwrap();
        let gathered = group.all_gather(&tensor).unwrap();
        assert_eq!(values(&gathered), [1.5, -2.0], "{device:?}");
    }
    group.barrier().unwrap();
}

/// Loss, gradients and adversarial examples of one network on a device, through the Reducer.
fn step(
    device: Device,
    architecture: Architecture,
    shape: [i64; 3],
    group: Option<&ProcessGroup>,
) -> (Tensor, Tensor, Vec<Tensor>) {
    let mut network = Network::new(&architecture.into(), shape, 10, 3, (Kind::Double, device)).unwrap();
    network.channels_last().unwrap();
    let mut reducer =
        group.map(|group| Reducer::new(&network.parameters(), group, ReducerOptions::default()).unwrap());
    let indices: Vec<usize> = (0..8).collect();
    let noise = |epoch, scale| {
        tensors::training_noise(1, epoch, &indices, shape, random::Start::Linf { radius: scale })
            .unwrap()
            .to_kind(Kind::Double)
            .to_device(device)
    };
    let images = network.prepare_input(&(noise(1, 0.5) + 0.5)).unwrap();
    let labels = Tensor::arange(8, (Kind::Int64, device));
    let threat_model = ThreatModel { norm: Norm::default(), epsilon: "8/255".parse().unwrap() };
    let pgd =
        attack::PgdParameters { perturbations: (&threat_model).into(), step_size: 2.0 / 255.0, steps: 3 };
    let start = noise(2, pgd.perturbations.epsilon);
    let adversarial = network.with_frozen_weights(|| {
        let loss = |x: &Tensor| objective::summed_cross_entropy(&network.forward(x, Mode::Eval)?, &labels);
        attack::pgd(&loss, &images, &pgd, &start).unwrap()
    });
    if let Some(reducer) = &mut reducer {
        reducer.prepare_forward().unwrap();
    }
    let objective = Objective::CrossEntropy(CrossEntropy { clean_weight: 0.5, label_smoothing: 0.0 });
    let loss = objective::loss(&network, &objective, Mode::Train, &images, &adversarial, &labels, 1.0 / 8.0)
        .unwrap();
    if let Some(reducer) = &mut reducer {
        reducer.prepare_backward().unwrap();
    }
    loss.f_backward().unwrap();
    let gradients = network.parameters().iter().map(|(_, parameter)| parameter.grad().copy()).collect();
    (loss.detach(), adversarial, gradients)
}

#[test]
fn an_adversarial_step_gives_what_the_cpu_gives() {
    let Some((cuda, _lock)) = gpu() else { return };
    for backend in [CudaBackend::Nccl, CudaBackend::Gloo] {
        let group = alone(cuda, backend);
        for (architecture, shape) in
            [(Architecture::SmallCnn, [1, 28, 28]), (Architecture::Resnet18, [3, 32, 32])]
        {
            let expected = step(Device::Cpu, architecture, shape, None);
            let found = step(Device::Cuda(0), architecture, shape, Some(&group));
            // Float64: what differs is the order of sums. (A sign of a gradient near 0 could differ, and does not.)
            assert_close(&found.0, &expected.0, 1e-9, "loss");
            assert_close(&found.1, &expected.1, 1e-9, "adversarial example");
            for (found, expected) in found.2.iter().zip(&expected.2) {
                assert_close(found, expected, 1e-8, "gradient");
            }
        }
    }
}

#[test]
fn an_evaluation_counts_what_the_cpu_counts() {
    let Some((_, _lock)) = gpu() else { return };
    let mut stream = random::Stream::order(5, 0);
    let pixels: Vec<u8> = (0..500 * 784).map(|_| stream.below(256) as u8).collect();
    let images = Images::new([1, 28, 28], pixels, (0..500).map(|index| (index % 10) as u16).collect());
    let indices: Vec<usize> = (0..500).collect();
    let threat_model = ThreatModel { norm: Norm::default(), epsilon: "0.02".parse().unwrap() };
    let spec = datjob_api::training::DuringAttack::Pgd(Pgd { steps: 5, step_size: None });
    let attacks = [EvalAttack::for_validation(&spec, &threat_model)];
    let count = |device| {
        let network =
            Network::new(&Architecture::SmallCnn.into(), [1, 28, 28], 10, 3, (Kind::Float, device)).unwrap();
        let evaluation = Evaluation {
            images: &images,
            indices: &indices,
            classes: 10,
            seed: 1,
            attacks: &attacks,
            device,
        };
        evaluate::evaluate(&network, &evaluation, Shard::WHOLE, &mut |_, _| {
            std::ops::ControlFlow::Continue(())
        })
        .unwrap()
    };
    let (expected, found) = (count(Device::Cpu), count(Device::Cuda(0)));
    println!("CPU {expected:?}, GPU {found:?}");
    // Float32: an image at the border between two classes may fall to either side.
    let apart = |one: &evaluate::ClassCounts, other: &evaluate::ClassCounts| one.sum().abs_diff(other.sum());
    assert!(apart(&expected.clean, &found.clean) <= 2);
    assert!(apart(&expected.worst_case, &found.worst_case) <= 5);
    assert_eq!(expected.total, found.total);
}

#[test]
fn copies_beside_the_computation_arrive_whole() {
    let Some((cuda, _lock)) = gpu() else { return };
    let placement = Placement::Cuda(cuda);
    let begin = placement.moment().unwrap();
    for index in 0..20 {
        let host = Tensor::full([1 << 20], i64::from(index), (Kind::Int64, Device::Cpu));
        let sent = placement.send(host).unwrap();
        // Work that the copy must not wait for, nor the other way round.
        let busy = Tensor::ones([1024, 1024], (Kind::Float, Device::Cuda(0)));
        let _ = busy.matmul(&busy);
        let sum = sent.take().unwrap().sum(Kind::Int64);
        assert_eq!(sum.int64_value(&[]), i64::from(index) << 20);
        let read = placement.read(&sum.to_kind(Kind::Double)).unwrap().value().unwrap();
        assert_eq!(read as i64, i64::from(index) << 20);
    }
    let end = placement.moment().unwrap();
    assert!(begin.until(&end).unwrap() > Duration::ZERO);
}

#[test]
fn memory_that_is_not_there_is_named_and_the_device_goes_on() {
    let Some((_, _lock)) = gpu() else { return };
    let error = Tensor::f_zeros([1 << 45], (Kind::Float, Device::Cuda(0))).unwrap_err();
    let error = TrainError::from(error);
    assert_eq!(error.reason(), FailureReason::OutOfMemory, "{error}");
    let small = Tensor::ones([4], (Kind::Float, Device::Cuda(0)));
    assert_eq!(values(&small), [1.0; 4]);
}

fn manifest(backend: &str) -> Value {
    json!({
        "apiVersion": "datjob.io/v1alpha1",
        "kind": "DatJob",
        "metadata": {"name": "gpu"},
        "spec": {
            "replicas": 1,
            "lifecycle": {"maxRestarts": 0},
            "checkpoints": {"persistentVolumeClaim": {"claimName": "unused"}},
            "training": {
                "seed": 3,
                "model": {"architecture": "small-cnn"},
                "data": {
                    "dataset": "mnist",
                    "source": {"volume": {"persistentVolumeClaim": {"claimName": "unused"}}},
                    "validation": {"count": 500},
                    "augmentation": {"crop": 1}
                },
                "threatModel": {"epsilon": "0.1"},
                "attack": {"fgsm": {}},
                "schedule": {"epochs": 3, "batchSize": 1024},
                "communication": {"backend": backend},
                "evaluation": {"during": {"pgd": {"steps": 1}}, "final": [{"pgd": {"steps": 2}}]}
            }
        }
    })
}

/// `dat-trainer run` of a manifest, whose files are in a directory.
fn command(manifest: &Value, directory: &Path, options: &[&str]) -> Command {
    fs::write(directory.join("job.yaml"), manifest.to_string()).unwrap();
    // A bundle of prepared binaries names the program; cargo knows where it built it.
    let program = env::var("DATJOB_TRAINER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_dat-trainer").to_owned());
    let mut command = Command::new(program);
    command.arg("run").arg(directory.join("job.yaml")).arg("--data").arg(squares::squares());
    command.arg("--checkpoints").arg(directory.join("checkpoints")).args(options);
    command
}

/// Clean accuracy on the test set, in percent.
fn clean_accuracy(directory: &Path) -> f64 {
    let results = fs::read(directory.join("checkpoints/gpu/results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    let count = |field: &str| results["results"]["clean"][field].as_f64().unwrap();
    100.0 * count("correct") / count("total")
}

/// A whole run: clean accuracy in percent, or what it complains about.
fn train(backend: &str, options: &[&str]) -> Result<f64, String> {
    let directory = tempfile::tempdir().unwrap();
    let output = command(&manifest(backend), directory.path(), options).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(clean_accuracy(directory.path()))
}

#[test]
fn a_whole_training_runs_on_the_gpu() {
    let Some((_, _lock)) = gpu() else { return };
    let clean = train("NCCL", &["--gpus", "1"]).unwrap();
    assert!(clean > 95.0, "{clean}");
}

#[test]
fn two_workers_share_a_gpu_over_gloo() {
    let Some((_, _lock)) = gpu() else { return };
    let clean = train("Gloo", &["--gpus", "1", "--workers", "2"]).unwrap();
    assert!(clean > 95.0, "{clean}");
    let refused = train("NCCL", &["--gpus", "1", "--workers", "2"]).unwrap_err();
    assert!(refused.contains("workers per pod (2) exceed the GPUs per pod (1)"), "{refused}");
}

#[test]
fn several_gpus_train_together_over_nccl() {
    let Some((cuda, _lock)) = gpu() else { return };
    if cuda.devices() < 2 {
        println!("SKIPPED: this test needs two GPUs, found one");
        return;
    }
    let count = cuda.devices().to_string();
    let clean = train("NCCL", &["--gpus", &count]).unwrap();
    assert!(clean > 95.0, "{clean}");
}

#[test]
fn a_killed_rank_of_an_nccl_world_costs_a_restart() {
    let Some((cuda, _lock)) = gpu() else { return };
    if cuda.devices() < 2 {
        println!("SKIPPED: this test needs two GPUs, found one");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut job = manifest("NCCL");
    job["spec"]["lifecycle"]["maxRestarts"] = 3.into();
    job["spec"]["training"]["schedule"]["epochs"] = 8.into();
    let mut agent = command(&job, directory.path(), &["--gpus", "2"]).spawn().unwrap();
    let checkpoint = directory.path().join("checkpoints/gpu/checkpoint-0001.json");
    let started = Instant::now();
    while !checkpoint.exists() {
        assert!(started.elapsed() < Duration::from_mins(5), "no checkpoint after 5 minutes");
        thread::sleep(Duration::from_millis(50));
    }
    let list = Command::new("pgrep").args(["-P", &agent.id().to_string()]).output().unwrap();
    let worker = String::from_utf8(list.stdout).unwrap().lines().next().expect("a worker").to_owned();
    assert!(Command::new("kill").args(["-9", &worker]).status().unwrap().success());
    assert!(agent.wait().unwrap().success());
    assert!(clean_accuracy(directory.path()) > 95.0);
}

#[test]
fn without_a_gpu_a_training_that_asks_for_one_says_what_is_missing() {
    if Placement::cuda().is_ok() {
        println!("SKIPPED: this machine has a GPU");
        return;
    }
    let refused = train("Auto", &["--gpus", "1"]).unwrap_err();
    assert!(refused.contains("driver") || refused.contains("CUDA"), "{refused}");
    let refused = train("NCCL", &[]).unwrap_err();
    assert!(refused.contains("spec.training.communication.backend"), "{refused}");
}

/// A driver that is there and does nothing: enough for the loader to go on to what comes after it.
#[test]
fn with_a_driver_and_without_cuda_libraries_the_sentence_names_the_image() {
    if Placement::cuda().is_ok() || Path::new("/dev/nvidiactl").exists() {
        println!("SKIPPED: this machine has a GPU");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, driver) = (folder.path().join("driver.c"), folder.path().join("libcuda.so.1"));
    fs::write(&source, "int cuInit(unsigned flags) { return 100; }\n").unwrap();
    let compiled = Command::new("cc").args(["-shared", "-o"]).arg(&driver).arg(&source).status().unwrap();
    assert!(compiled.success());
    // The loader reads the variable when a process starts.
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_world_of_one_reduces_by_nccl", "--nocapture"])
        .env("LD_LIBRARY_PATH", folder.path())
        .env("DATJOB_CUDA_PLUGIN", "/nowhere/libdatjob_cuda.so")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let reason = text.lines().find(|line| line.contains("SKIPPED")).expect("a reason");
    assert!(
        reason.contains("libtorch_cuda.so") && reason.contains("CPU image") || reason.contains("/nowhere"),
        "{text}"
    );
}
