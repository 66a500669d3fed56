//! Tests that need a GPU. Without a GPU each test prints SKIPPED and the reason; the unit tests of `placement` and
//! `datjob_c10d::Cuda` do not need one. `make test-gpu` runs these tests; docs/gpu.md describes it, and how to run them
//! without network and toolchain.

use std::{
    env, fs,
    net::Ipv4Addr,
    ops::ControlFlow,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use datjob_adversarial::{
    evaluate::{self, Counts, EvalAttack, Evaluation, EvaluationProgress, NoUnitResults},
    model::Network,
    shard::Shard,
};
use datjob_api::training::{Architecture, Norm, Pgd, ThreatModel};
use datjob_c10d::{Cuda, CudaBackend, GlooDevice, GlooOptions, ProcessGroup, ReduceOp, TcpStore};
use datjob_data::{Images, random};
use datjob_trainer::placement::Placement;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

#[path = "common/adversarial_step.rs"]
mod adversarial_step;
#[path = "gpu/memory.rs"]
mod memory;
#[path = "gpu/methods.rs"]
mod methods;
#[path = "common/npz.rs"]
mod npz;
#[path = "common/synthetic_mnist.rs"]
mod synthetic_mnist;
#[path = "common/test_directory.rs"]
mod test_directory;

use adversarial_step::step;
use synthetic_mnist::synthetic_mnist;

const TIMEOUT: Duration = Duration::from_mins(1);

/// The GPU, locked for one test at a time. `None` without a GPU; the reason is printed.
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

fn single_rank_group(cuda: Cuda, backend: CudaBackend) -> ProcessGroup {
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
fn reports_device_name_and_memory_use() {
    let Some((cuda, _lock)) = gpu() else { return };
    let device = cuda.device_properties(0).unwrap();
    println!("{device:?}");
    assert!(!device.name.is_empty() && device.capability.0 >= 7, "{device:?}");
    let before = cuda.memory(0).unwrap();
    let tensor = Tensor::zeros([64 << 20], (Kind::Float, Device::Cuda(0)));
    cuda.synchronize(0).unwrap();
    let during = cuda.memory(0).unwrap();
    assert!(during.allocated >= before.allocated + (256 << 20), "{before:?} {during:?}");
    drop(tensor);
    let after = cuda.memory(0).unwrap();
    assert!(after.allocated <= before.allocated && after.peak_allocated >= during.allocated, "{after:?}");
}

#[test]
fn collectives_work_in_a_world_of_one() {
    let Some((cuda, _lock)) = gpu() else { return };
    for backend in [CudaBackend::Nccl, CudaBackend::Gloo] {
        let group = single_rank_group(cuda, backend);
        for device in [Device::Cuda(0), Device::Cpu] {
            let tensor = Tensor::from_slice(&[1.5_f32, -2.0]).to_device(device);
            let slice = Tensor::ones([2, 2], (Kind::Float, device)).narrow(1, 0, 1);
            group.all_reduce(&tensor, ReduceOp::Sum).unwrap();
            group.all_reduce_coalesced(&[&tensor, &slice], ReduceOp::Sum).unwrap();
            group.broadcast(&tensor, 0).unwrap();
            group.broadcast_coalesced(&[&tensor, &slice], 0).unwrap();
            let gathered = group.all_gather(&tensor).unwrap();
            assert_eq!(values(&gathered), [1.5, -2.0], "{backend:?} {device:?}");
            let received = group.all_to_all(&tensor.view([1, 2])).unwrap();
            assert_eq!(values(&received), [1.5, -2.0], "{backend:?} {device:?}");
            assert_eq!(values(&slice), [1.0, 1.0], "{backend:?} {device:?}");
        }
        group.barrier().unwrap();
    }
}

#[test]
fn adversarial_step_matches_the_cpu() {
    let Some((cuda, _lock)) = gpu() else { return };
    for backend in [CudaBackend::Nccl, CudaBackend::Gloo] {
        let group = single_rank_group(cuda, backend);
        for (architecture, shape) in
            [(Architecture::SmallCnn, [1, 28, 28]), (Architecture::Resnet18, [3, 32, 32])]
        {
            let expected = step(Device::Cpu, architecture, shape, None);
            let found = step(Device::Cuda(0), architecture, shape, Some(&group));
            // In float64 only the order of sums differs. (The sign of a gradient near 0 could differ, but does not here.)
            assert_close(&found.loss, &expected.loss, 1e-9, "loss");
            assert_close(&found.adversarial, &expected.adversarial, 1e-9, "adversarial example");
            for (found, expected) in found.gradients.iter().zip(&expected.gradients) {
                assert_close(found, expected, 1e-8, "gradient");
            }
        }
    }
}

#[test]
fn evaluation_matches_the_cpu() {
    let Some((_, _lock)) = gpu() else { return };
    let images = random_images([1, 28, 28], 500);
    let count = |device| {
        let network =
            Network::new(&Architecture::SmallCnn.into(), [1, 28, 28], 10, 3, (Kind::Float, device)).unwrap();
        evaluate_pgd(&network, &images, device)
    };
    let (expected, found) = (count(Device::Cpu), count(Device::Cuda(0)));
    println!("CPU {expected:?}, GPU {found:?}");
    assert_almost_equal(&found, &expected);
}

/// Images of noise, with labels 0 to 9 in turn.
fn random_images(shape: [i64; 3], count: usize) -> Images {
    Images::new(shape, random_pixels(shape, count), (0..count).map(|index| (index % 10) as u16).collect())
}

fn random_pixels(shape: [i64; 3], count: usize) -> Vec<u8> {
    let mut stream = random::Stream::order(5, 0);
    let size = count * shape.iter().product::<i64>() as usize;
    (0..size).map(|_| stream.below(256) as u8).collect()
}

/// The counts of all images under PGD-5 at 0.02.
fn evaluate_pgd(network: &Network, images: &Images, device: Device) -> Counts {
    let threat_model = ThreatModel { norm: Norm::default(), epsilon: "0.02".parse().unwrap() };
    let spec = datjob_api::training::DuringAttack::Pgd(Pgd { steps: 5, step_size: None });
    let attacks = [EvalAttack::for_validation(&spec, &threat_model)];
    let indices: Vec<usize> = (0..images.len()).collect();
    let evaluation =
        Evaluation { images, indices: &indices, classes: 10, seed: 1, attacks: &attacks, device };
    let mut ignore = |_: EvaluationProgress<'_>| ControlFlow::Continue(());
    evaluate::evaluate(network, &evaluation, Shard::WHOLE, &mut NoUnitResults, &mut ignore).unwrap()
}

/// In float32, an image close to a decision boundary may get either class.
fn assert_almost_equal(found: &Counts, expected: &Counts) {
    let difference =
        |one: &evaluate::ClassCounts, other: &evaluate::ClassCounts| one.sum().abs_diff(other.sum());
    assert!(difference(&expected.clean, &found.clean) <= 2);
    assert!(difference(&expected.worst_case, &found.worst_case) <= 5);
    assert_eq!(expected.total, found.total);
}

#[test]
fn copies_concurrent_with_computation_are_correct() {
    let Some((cuda, _lock)) = gpu() else { return };
    let placement = Placement::Cuda(cuda);
    let start = placement.record_event().unwrap();
    for index in 0..20 {
        let host = Tensor::full([1 << 20], i64::from(index), (Kind::Int64, Device::Cpu));
        let uploaded = placement.upload(host).unwrap();
        // Computation that runs concurrently with the copy.
        let matrix = Tensor::ones([1024, 1024], (Kind::Float, Device::Cuda(0)));
        let _ = matrix.matmul(&matrix);
        let sum = uploaded.into_tensor().unwrap().sum(Kind::Int64);
        assert_eq!(sum.int64_value(&[]), i64::from(index) << 20);
        let read = placement.download_scalar(&sum.to_kind(Kind::Double)).unwrap().wait().unwrap();
        assert_eq!(read as i64, i64::from(index) << 20);
    }
    let end = placement.record_event().unwrap();
    assert!(start.elapsed_time(&end).unwrap() > Duration::ZERO);
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
                "threatModel": {"epsilon": "0.02"},
                "attack": {"fgsm": {}},
                "schedule": {"epochs": 3, "batchSize": 256},
                "communication": {"backend": backend},
                "evaluation": {"during": {"pgd": {"steps": 1}}, "final": [{"pgd": {"steps": 2}}]}
            }
        }
    })
}

/// `dat-trainer run` of a manifest, with the manifest and the checkpoints in a directory.
fn command(manifest: &Value, directory: &Path, options: &[&str]) -> Command {
    fs::write(directory.join("job.yaml"), manifest.to_string()).unwrap();
    // A bundle of prebuilt binaries sets the variable; otherwise cargo has built the program.
    let program = env::var("DATJOB_TRAINER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_dat-trainer").to_owned());
    let mut command = Command::new(program);
    command.arg("run").arg(directory.join("job.yaml")).arg("--data").arg(synthetic_mnist());
    command.arg("--checkpoints").arg(directory.join("checkpoints")).args(options);
    command
}

/// The results of a run in a directory.
fn results(directory: &Path) -> Value {
    let results = fs::read(directory.join("checkpoints/gpu/results.json")).unwrap();
    serde_json::from_slice::<Value>(&results).unwrap()["results"].clone()
}

/// Clean accuracy on the test set, in percent.
fn clean_accuracy(results: &Value) -> f64 {
    let count = |field: &str| results["clean"][field].as_f64().unwrap();
    100.0 * count("correct") / count("total")
}

/// Trains and returns the clean accuracy in percent, or standard error if the run fails.
fn train(backend: &str, options: &[&str]) -> Result<f64, String> {
    let directory = tempfile::tempdir().unwrap();
    let output = command(&manifest(backend), directory.path(), options).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(clean_accuracy(&results(directory.path())))
}

#[test]
fn trains_on_the_gpu() {
    let Some((_, _lock)) = gpu() else { return };
    let clean = train("NCCL", &["--gpus", "1"]).unwrap();
    assert!(clean > 95.0, "{clean}");
}

#[test]
fn two_workers_share_a_gpu_over_gloo() {
    let Some((_, _lock)) = gpu() else { return };
    let clean = train("Gloo", &["--gpus", "1", "--workers", "2"]).unwrap();
    assert!(clean > 95.0, "{clean}");
    let error = train("NCCL", &["--gpus", "1", "--workers", "2"]).unwrap_err();
    assert!(error.contains("workers per pod (2) exceed the GPUs per pod (1)"), "{error}");
}

#[test]
fn trains_on_several_gpus_over_nccl() {
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
fn nccl_world_restarts_after_a_killed_rank() {
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
    let pids = Command::new("pgrep").args(["-P", &agent.id().to_string()]).output().unwrap();
    let worker = String::from_utf8(pids.stdout).unwrap().lines().next().expect("a worker").to_owned();
    assert!(Command::new("kill").args(["-9", &worker]).status().unwrap().success());
    assert!(agent.wait().unwrap().success());
    assert!(clean_accuracy(&results(directory.path())) > 95.0);
}

#[test]
fn reports_the_missing_gpu() {
    if Placement::cuda().is_ok() {
        println!("SKIPPED: this machine has a GPU");
        return;
    }
    let error = train("Auto", &["--gpus", "1"]).unwrap_err();
    assert!(error.contains("driver") || error.contains("CUDA"), "{error}");
    let error = train("NCCL", &[]).unwrap_err();
    assert!(error.contains("spec.training.communication.backend"), "{error}");
}

/// A stub driver lets the loader continue to the CUDA libraries.
#[test]
fn reports_missing_cuda_libraries_with_the_image() {
    if Placement::cuda().is_ok() || Path::new("/dev/nvidiactl").exists() {
        println!("SKIPPED: this machine has a GPU");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, driver) = (folder.path().join("driver.c"), folder.path().join("libcuda.so.1"));
    fs::write(&source, "int cuInit(unsigned flags) { return 100; }\n").unwrap();
    let compiled = Command::new("cc").args(["-shared", "-o"]).arg(&driver).arg(&source).status().unwrap();
    assert!(compiled.success());
    // The loader reads LD_LIBRARY_PATH when a process starts.
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "collectives_work_in_a_world_of_one", "--nocapture"])
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
