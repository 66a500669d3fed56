//! Measures the images per second that the loader reads, decodes and resizes to 224×224.
//!
//! The input is generated JPEG files of ImageNet's usual size (500×375). It measures one core and all cores, in wall-clock
//! time and in processor time; other processes do not affect the latter. `decode.py` measures the same with Pillow, if the
//! Python of `DATJOB_BENCH_PYTHON` has it.

use std::{env, fs, path::Path, process::Command, thread, time::Instant};

use datjob_api::training::Data;
use datjob_data::{Augmentation, Loader};
use turbojpeg::{Image, PixelFormat, Subsamp};

const FILES: usize = 64;
const BATCH: usize = 64;
const BATCHES: usize = 32;

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut bytes = 0;
    for subset in ["train", "val"] {
        for class in ["a", "b"] {
            let folder = dir.path().join(subset).join(class);
            fs::create_dir_all(&folder).expect("a folder");
            for number in 0..FILES / 2 {
                let jpeg = synthetic_jpeg(number * 2 + usize::from(class == "b"));
                bytes += jpeg.len();
                fs::write(folder.join(format!("{number:03}.jpg")), jpeg).expect("a file");
            }
        }
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!("JPEG of 500×375, {} KB on average, to 224×224", bytes / FILES / 2 / 1000);
    for threads in if cores > 1 { vec![1, cores] } else { vec![1] } {
        for (view, crop) in [("random crop, flip", "{}"), ("center crop", r#"{"crop": 0, "flip": false}"#)] {
            let (by_clock, by_processor) = measure(dir.path(), threads, crop);
            println!(
                "{threads:>2} threads  {view:<18} {by_clock:>6.0} images/s  {by_processor:>6.0} images per processor second"
            );
        }
    }
    let python = env::var("DATJOB_BENCH_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/decode.py");
    match Command::new(&python).arg(script).arg(dir.path().join("train")).output() {
        Ok(output) if output.status.success() => print!("{}", String::from_utf8_lossy(&output.stdout)),
        _ => println!("Comparison with Pillow skipped: {python} failed; it needs Pillow and NumPy."),
    }
}

/// A JPEG of waves and noise, which compresses about as well as a photograph.
fn synthetic_jpeg(number: usize) -> Vec<u8> {
    let (width, height) = (500, 375);
    let mut state = number as u32 + 1;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 24) / 8.0
    };
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let (x, y, phase) = (x as f64, y as f64, number as f64);
            let wave = (x / 37.0 + phase).sin() + (y / 23.0 - phase).cos() + ((x + y) / 61.0).sin();
            let grain = noise();
            pixels.extend([30.0, 10.0, 50.0].map(|shift| (wave * 25.0 + 80.0 + shift + grain) as u8));
        }
    }
    let image = Image { pixels: &*pixels, width, pitch: width * 3, height, format: PixelFormat::RGB };
    turbojpeg::compress(image, 92, Subsamp::Sub2x2).expect("a JPEG").to_vec()
}

/// Images per second of wall-clock time and of processor time.
fn measure(dir: &Path, threads: usize, augmentation: &str) -> (f64, f64) {
    let spec = format!(
        r#"{{"dataset": "image-folder", "source": {{"image": {{"reference": "none"}}}}, "augmentation": {augmentation}}}"#
    );
    let spec: Data = serde_json::from_str(&spec).expect("a spec");
    let images = datjob_data::load(&spec, dir, threads).expect("images").train;
    let batches = (0..BATCHES).map(|_| (0..BATCH).map(|image| image % FILES).collect());
    let augmentation = Augmentation::new(&spec.variation(), &[], 0, 0);
    let mut loader = Loader::new(&images, batches, Some(augmentation)).expect("a loader");
    // The first batch warms up the page cache and the threads.
    loader.next_batch().expect("a batch");
    let (start, used) = (Instant::now(), processor_seconds());
    while loader.next_batch().expect("a batch").is_some() {}
    // Two batches were prefetched when the clock started.
    let images = ((BATCHES - 3) * BATCH) as f64;
    (images / start.elapsed().as_secs_f64(), images / (processor_seconds() - used))
}

/// User and system time of all threads of this process; Linux counts it in ticks of 10 ms.
fn processor_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
