//! Prefetching: threads decode the images of the next batches while a step or an attack computes.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Augmentation, DataError, ImageBatch, Images};

/// Maximum number of batches that are decoded in advance.
const PREFETCH_BATCHES: usize = 2;
/// Maximum size of the images that are decoded in advance, without the current batch.
const PREFETCH_BYTES: usize = 256 << 20;

/// Reads batches of images in a given order. The result does not depend on the number of threads.
///
/// Threads decode encoded images at most two batches and at most 256 MiB in advance. Images in memory are read on demand,
/// which costs less than passing them between threads.
pub struct Loader {
    images: Images,
    augmentation: Option<Augmentation>,
    batches: VecDeque<Vec<usize>>,
    prefetcher: Option<Prefetcher>,
    wait_time: Duration,
}

/// Threads that decode the next images. They end after it is dropped, and are not waited for: one of them may wait for its
/// storage.
struct Prefetcher {
    /// All images of all batches, in order.
    order: Vec<usize>,
    /// How many of them are queued or done.
    queued: usize,
    /// How many of them were returned.
    returned: usize,
    /// How many images may be queued in addition to the current batch.
    window: usize,
    jobs: Sender<DecodeJob>,
    results: Receiver<DecodeResult>,
    /// Images that were decoded out of order.
    out_of_order: HashMap<usize, Result<Vec<u8>, DataError>>,
}

/// An image to decode.
struct DecodeJob {
    /// Its position in the order.
    position: usize,
    /// Its index in the data set.
    index: usize,
}

/// A decoded image.
struct DecodeResult {
    position: usize,
    image: Result<Vec<u8>, DataError>,
}

impl Loader {
    /// Starts to read these batches of `images`; `augmentation` is applied to each image.
    pub fn new(
        images: &Images,
        batches: impl IntoIterator<Item = Vec<usize>>,
        augmentation: Option<Augmentation>,
    ) -> Result<Self, DataError> {
        let batches: VecDeque<Vec<usize>> = batches.into_iter().collect();
        let prefetcher = match images.decoding_threads() {
            None => None,
            Some(threads) => Some(Prefetcher::start(images, &batches, augmentation.as_ref(), threads)?),
        };
        Ok(Self { images: images.clone(), augmentation, batches, prefetcher, wait_time: Duration::ZERO })
    }

    /// The next batch, or `None` after the last one.
    pub fn next_batch(&mut self) -> Result<Option<ImageBatch>, DataError> {
        let start = Instant::now();
        let Some(indices) = self.batches.pop_front() else { return Ok(None) };
        let batch = match &mut self.prefetcher {
            None => self.images.read(&indices, self.augmentation.as_ref()),
            Some(prefetcher) => prefetcher
                .next_images(indices.len(), self.images.image_bytes())
                .map(|pixels| self.images.batch(&indices, pixels, self.augmentation.as_ref())),
        };
        self.wait_time += start.elapsed();
        batch.map(Some)
    }

    /// The total time spent in [`next_batch`](Self::next_batch).
    pub fn wait_time(&self) -> Duration {
        self.wait_time
    }
}

impl Prefetcher {
    fn start(
        images: &Images,
        batches: &VecDeque<Vec<usize>>,
        augmentation: Option<&Augmentation>,
        threads: usize,
    ) -> Result<Self, DataError> {
        let largest = batches.iter().map(Vec::len).max().unwrap_or(0);
        let window = (PREFETCH_BATCHES * largest).min((PREFETCH_BYTES / images.image_bytes()).max(1));
        // At most this many images are in flight, so neither side blocks when it sends.
        let (jobs, job_receiver) = bounded(window + largest);
        let (result_sender, results) = bounded(window + largest);
        let mut prefetcher = Self {
            order: batches.iter().flatten().copied().collect(),
            queued: 0,
            returned: 0,
            window,
            jobs,
            results,
            out_of_order: HashMap::new(),
        };
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                decode_worker(images, augmentation.cloned(), job_receiver.clone(), result_sender.clone())
            })
            .collect();
        // If a thread cannot be spawned, the others exit when the last of these channel ends is dropped.
        drop((job_receiver, result_sender));
        for (number, worker) in workers.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("decode-{number}")).spawn(worker);
            thread.map_err(DataError::Thread)?;
        }
        prefetcher.enqueue(0);
        Ok(prefetcher)
    }

    /// Queues the next `count` images, plus the prefetch window.
    fn enqueue(&mut self, count: usize) {
        let end = (self.returned + count + self.window).min(self.order.len());
        for position in self.queued..end {
            // The channel has room, and the threads receive as long as `self` exists.
            let _ = self.jobs.send(DecodeJob { position, index: self.order[position] });
        }
        self.queued = self.queued.max(end);
    }

    /// The next `count` images of `image_bytes` bytes each.
    fn next_images(&mut self, count: usize, image_bytes: usize) -> Result<Vec<u8>, DataError> {
        self.enqueue(count);
        let mut pixels = vec![0; count * image_bytes];
        for out in pixels.chunks_exact_mut(image_bytes) {
            out.copy_from_slice(&self.next_image()?);
        }
        self.enqueue(0);
        Ok(pixels)
    }

    fn next_image(&mut self) -> Result<Vec<u8>, DataError> {
        let next = self.returned;
        self.returned += 1;
        loop {
            if let Some(image) = self.out_of_order.remove(&next) {
                return image;
            }
            let disconnected =
                |_| DataError::Thread(std::io::Error::other("the decoder threads have exited"));
            let DecodeResult { position, image } = self.results.recv().map_err(disconnected)?;
            self.out_of_order.insert(position, image);
        }
    }
}

/// The main function of a decoder thread. It returns when the prefetcher is dropped.
fn decode_worker(
    images: &Images,
    augmentation: Option<Augmentation>,
    jobs: Receiver<DecodeJob>,
    results: Sender<DecodeResult>,
) -> impl FnOnce() + Send + use<> {
    let image_bytes = images.image_bytes();
    let images = images.clone();
    move || {
        let mut reader = images.reader();
        for DecodeJob { position, index } in jobs {
            let mut image = vec![0; image_bytes];
            // After a panic the loader would wait for this image forever.
            let read =
                catch_unwind(AssertUnwindSafe(|| reader.read(index, augmentation.as_ref(), &mut image)));
            let read = read.unwrap_or_else(|_| {
                reader = images.reader();
                let image = format!("image {index}");
                Err(DataError::Image { image, problem: "the decoder panicked".to_owned() })
            });
            if results.send(DecodeResult { position, image: read.map(|()| image) }).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::decode::tests::jpeg, *};
    use crate::{
        cutmix::CutMixSampler,
        encoded::{EncodedImages, ImageLocations},
    };

    /// `count` JPEG files of different colours; if `broken`, the last file is not an image.
    fn images(count: usize, threads: usize, broken: bool) -> (tempfile::TempDir, Images) {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<Box<str>> = (0..count).map(|image| format!("{image}.jpg").into()).collect();
        for (image, name) in names.iter().enumerate() {
            let bytes = jpeg(40 + image, 30, [(image * 5) as u8, 100, 200]);
            let bytes = if broken && image + 1 == count { b"none".to_vec() } else { bytes };
            fs::write(dir.path().join(&**name), bytes).unwrap();
        }
        let locations = ImageLocations::Files { root: dir.path().to_owned(), files: names };
        (dir, Images::encoded(EncodedImages::new(locations, 16), (0..count as u16).collect(), threads))
    }

    const AUGMENTED: Augmentation = Augmentation {
        crop: 2,
        flip: true,
        random_resized_crop: Some(0.08),
        cutout: 4,
        cut_mix: None,
        seed: 7,
        epoch: 3,
    };

    #[test]
    fn batches_come_in_order_and_match_an_unthreaded_read() {
        let batches = [vec![3, 9, 1, 40], vec![2], vec![], (10..40).collect(), vec![0, 0]];
        let (_dir, images) = images(50, 3, false);
        let sampler = CutMixSampler { alpha: 1.0, partners: [4, 17].into() };
        let mixed = Augmentation { cut_mix: Some(sampler), ..AUGMENTED };
        for augmentation in [None, Some(AUGMENTED), Some(mixed)] {
            let mut loader = Loader::new(&images, batches.clone(), augmentation.clone()).unwrap();
            for batch in &batches {
                let read = loader.next_batch().unwrap().unwrap();
                let expected = images.read(batch, augmentation.as_ref()).unwrap();
                assert_eq!((&read.pixels, &read.mixed_labels), (&expected.pixels, &expected.mixed_labels));
                assert_eq!(read.labels, batch.iter().map(|&image| image as i64).collect::<Vec<_>>());
            }
            assert!(loader.next_batch().unwrap().is_none());
            assert!(loader.wait_time() > Duration::ZERO);
        }
    }

    #[test]
    fn decodes_at_most_two_batches_in_advance() {
        let (dir, images) = images(60, 2, false);
        let mut loader =
            Loader::new(&images, (0..30).map(|batch| vec![batch * 2, batch * 2 + 1]), None).unwrap();
        loader.next_batch().unwrap();
        thread::sleep(Duration::from_millis(300));
        // Two images were returned and two batches of two are prefetched. Later images are not read yet; remove them.
        for image in 6..60 {
            fs::remove_file(dir.path().join(format!("{image}.jpg"))).unwrap();
        }
        loader.next_batch().unwrap();
        loader.next_batch().unwrap();
        let message = loader.next_batch().unwrap_err().to_string();
        assert!(message.starts_with("cannot read ") && message.contains("6.jpg: "), "{message}");
    }

    #[test]
    fn reports_a_broken_image_when_its_batch_is_read() {
        let (dir, images) = images(8, 2, true);
        let mut loader = Loader::new(&images, [vec![0, 1], vec![7], vec![2]], None).unwrap();
        loader.next_batch().unwrap();
        let message = loader.next_batch().unwrap_err().to_string();
        let name = dir.path().join("7.jpg");
        assert_eq!(message, format!("{}: not a JPEG or PNG image", name.display()));
    }

    #[test]
    fn dropping_the_loader_ends_its_threads() {
        let (_dir, images) = images(50, 2, false);
        let loader = Loader::new(&images, [(0..50).collect::<Vec<_>>()], None).unwrap();
        let results = loader.prefetcher.as_ref().unwrap().results.clone();
        drop(loader);
        // The senders of the threads are dropped when they end.
        while results.recv().is_ok() {}
    }
}
