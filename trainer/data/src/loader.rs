//! Reading ahead: threads decode the images of coming batches while a step or an attack computes.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Augmentation, DataError, Images, Loaded};

/// How many batches are decoded ahead at most.
const BATCHES_AHEAD: usize = 2;
/// How many bytes of decoded images are held ahead at most, beside the batch that is being put together.
const BYTES_AHEAD: usize = 256 << 20;

/// Batches of images in a given order, whatever thread decodes them.
///
/// Encoded images are decoded by threads that are at most two batches and at most 256 MiB ahead; what lies in memory is
/// read when it is asked for, which costs less than handing it over.
pub struct Loader {
    images: Images,
    augmentation: Option<Augmentation>,
    batches: VecDeque<Vec<usize>>,
    ahead: Option<Ahead>,
    waited: Duration,
}

/// Threads at work on coming images.
struct Ahead {
    /// All images of all batches, in order.
    order: Vec<usize>,
    /// How many of them were asked for.
    asked: usize,
    /// How many of them were taken.
    taken: usize,
    /// How many may be asked for and not be taken, beside those of the batch being taken.
    most: usize,
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    /// Images that came before their turn.
    early: HashMap<usize, Result<Vec<u8>, DataError>>,
    threads: Vec<JoinHandle<()>>,
}

/// An image to read, and its place in the order.
type Job = (usize, usize);
type Done = (usize, Result<Vec<u8>, DataError>);

impl Loader {
    /// Begins to read these batches of `images`, varied where `augmentation` is given.
    pub fn new(
        images: &Images,
        batches: impl IntoIterator<Item = Vec<usize>>,
        augmentation: Option<Augmentation>,
    ) -> Result<Self, DataError> {
        let batches: VecDeque<Vec<usize>> = batches.into_iter().collect();
        let ahead = match images.decoding_threads() {
            None => None,
            Some(threads) => Some(Ahead::begin(images, &batches, augmentation.as_ref(), threads)?),
        };
        Ok(Self { images: images.clone(), augmentation, batches, ahead, waited: Duration::ZERO })
    }

    /// The next batch; nothing after the last.
    pub fn next_batch(&mut self) -> Result<Option<Loaded>, DataError> {
        let begun = Instant::now();
        let Some(batch) = self.batches.pop_front() else { return Ok(None) };
        let loaded = match &mut self.ahead {
            None => self.images.read(&batch, self.augmentation.as_ref()),
            Some(ahead) => ahead
                .take(batch.len(), self.images.image_bytes())
                .map(|pixels| self.images.loaded(&batch, pixels, self.augmentation.as_ref())),
        };
        self.waited += begun.elapsed();
        loaded.map(Some)
    }

    /// How long [`next_batch`](Self::next_batch) took in all.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Ahead {
    fn begin(
        images: &Images,
        batches: &VecDeque<Vec<usize>>,
        augmentation: Option<&Augmentation>,
        threads: usize,
    ) -> Result<Self, DataError> {
        let largest = batches.iter().map(Vec::len).max().unwrap_or(0);
        let most = (BATCHES_AHEAD * largest).min((BYTES_AHEAD / images.image_bytes()).max(1));
        // No more than this is ever under way, so that neither side blocks in sending.
        let (jobs, inbox) = bounded(most + largest);
        let (outbox, done) = bounded(most + largest);
        let mut ahead = Self {
            order: batches.iter().flatten().copied().collect(),
            asked: 0,
            taken: 0,
            most,
            jobs: Some(jobs),
            done,
            early: HashMap::new(),
            threads: Vec::new(),
        };
        let work: Vec<_> = (0..threads)
            .map(|_| decoding(images, augmentation.cloned(), inbox.clone(), outbox.clone()))
            .collect();
        // Where a thread cannot be had, those that were made end when the last of these is gone.
        drop((inbox, outbox));
        for (number, work) in work.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("decode-{number}")).spawn(work);
            ahead.threads.push(thread.map_err(DataError::Thread)?);
        }
        ahead.ask(0);
        Ok(ahead)
    }

    /// Asks for all up to so many images from the next on, and those to be read ahead.
    fn ask(&mut self, count: usize) {
        let Some(jobs) = &self.jobs else { return };
        let end = (self.taken + count + self.most).min(self.order.len());
        for number in self.asked..end {
            // There is room, and the threads live as long as this does.
            let _ = jobs.send((number, self.order[number]));
        }
        self.asked = self.asked.max(end);
    }

    /// The next `count` images, of so many bytes each.
    fn take(&mut self, count: usize, bytes: usize) -> Result<Vec<u8>, DataError> {
        self.ask(count);
        let mut pixels = vec![0; count * bytes];
        for out in pixels.chunks_exact_mut(bytes) {
            out.copy_from_slice(&self.one()?);
        }
        self.ask(0);
        Ok(pixels)
    }

    fn one(&mut self) -> Result<Vec<u8>, DataError> {
        let wanted = self.taken;
        self.taken += 1;
        loop {
            if let Some(image) = self.early.remove(&wanted) {
                return image;
            }
            let gone = |_| DataError::Thread(std::io::Error::other("the decoder threads have exited"));
            let (number, image) = self.done.recv().map_err(gone)?;
            self.early.insert(number, image);
        }
    }
}

/// What a thread does: one image after the other, until nobody asks any more.
fn decoding(
    images: &Images,
    augmentation: Option<Augmentation>,
    inbox: Receiver<Job>,
    outbox: Sender<Done>,
) -> impl FnOnce() + Send + use<> {
    let bytes = images.image_bytes();
    let images = images.clone();
    move || {
        let mut reader = images.reader();
        for (number, index) in inbox {
            let mut image = vec![0; bytes];
            // A panic would leave the loader waiting for this image for ever.
            let read =
                catch_unwind(AssertUnwindSafe(|| reader.read(index, augmentation.as_ref(), &mut image)));
            let read = read.unwrap_or_else(|_| {
                reader = images.reader();
                let image = format!("image {index}");
                Err(DataError::Image { image, problem: "the decoder panicked".to_owned() })
            });
            if outbox.send((number, read.map(|()| image))).is_err() {
                return;
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.jobs = None;
        // Those that wait for a place in the queue are let go.
        while self.done.recv().is_ok() {}
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::decode::tests::jpeg, *};
    use crate::{
        cutmix::Mixing,
        encoded::{Encoded, Places},
    };

    /// Images of as many colours, the last of which may be none.
    fn images(count: usize, threads: usize, broken: bool) -> (tempfile::TempDir, Images) {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<Box<str>> = (0..count).map(|image| format!("{image}.jpg").into()).collect();
        for (image, name) in names.iter().enumerate() {
            let bytes = jpeg(40 + image, 30, [(image * 5) as u8, 100, 200]);
            let bytes = if broken && image + 1 == count { b"none".to_vec() } else { bytes };
            fs::write(dir.path().join(&**name), bytes).unwrap();
        }
        let places = Places::Files { root: dir.path().to_owned(), files: names };
        (dir, Images::encoded(Encoded::new(places, 16), (0..count as u16).collect(), threads))
    }

    const VARIED: Augmentation = Augmentation {
        crop: 2,
        flip: true,
        random_resized_crop: Some(0.08),
        cutout: 4,
        cut_mix: None,
        seed: 7,
        epoch: 3,
    };

    #[test]
    fn the_order_is_that_of_the_batches_and_the_pixels_those_of_any_number_of_threads() {
        let batches = [vec![3, 9, 1, 40], vec![2], vec![], (10..40).collect(), vec![0, 0]];
        let (_dir, images) = images(50, 3, false);
        let mixing = Mixing { alpha: 1.0, partners: [4, 17].into() };
        let mixed = Augmentation { cut_mix: Some(mixing), ..VARIED };
        for augmentation in [None, Some(VARIED), Some(mixed)] {
            let mut loader = Loader::new(&images, batches.clone(), augmentation.clone()).unwrap();
            for batch in &batches {
                let loaded = loader.next_batch().unwrap().unwrap();
                let expected = images.read(batch, augmentation.as_ref()).unwrap();
                assert_eq!((&loaded.pixels, &loaded.mixed), (&expected.pixels, &expected.mixed));
                assert_eq!(loaded.labels, batch.iter().map(|&image| image as i64).collect::<Vec<_>>());
            }
            assert!(loader.next_batch().unwrap().is_none());
            assert!(loader.waited() > Duration::ZERO);
        }
    }

    #[test]
    fn no_more_is_decoded_than_is_bounded() {
        let (dir, images) = images(60, 2, false);
        let mut loader =
            Loader::new(&images, (0..30).map(|batch| vec![batch * 2, batch * 2 + 1]), None).unwrap();
        loader.next_batch().unwrap();
        thread::sleep(Duration::from_millis(300));
        // Two were taken and two batches of two are ahead: what comes later is not read yet, and is not there any more.
        for image in 6..60 {
            fs::remove_file(dir.path().join(format!("{image}.jpg"))).unwrap();
        }
        loader.next_batch().unwrap();
        loader.next_batch().unwrap();
        let sentence = loader.next_batch().unwrap_err().to_string();
        assert!(sentence.starts_with("cannot read ") && sentence.contains("6.jpg: "), "{sentence}");
    }

    #[test]
    fn a_broken_image_is_named_when_its_turn_comes() {
        let (dir, images) = images(8, 2, true);
        let mut loader = Loader::new(&images, [vec![0, 1], vec![7], vec![2]], None).unwrap();
        loader.next_batch().unwrap();
        let sentence = loader.next_batch().unwrap_err().to_string();
        let name = dir.path().join("7.jpg");
        assert_eq!(sentence, format!("{}: not a JPEG or PNG image", name.display()));
    }

    #[test]
    fn a_loader_that_is_dropped_leaves_no_thread() {
        let (_dir, images) = images(50, 2, false);
        let loader = Loader::new(&images, [(0..50).collect::<Vec<_>>()], None).unwrap();
        drop(loader);
    }
}
