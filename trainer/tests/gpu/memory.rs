//! A GPU without enough memory.

use datjob_adversarial::{
    certify::{self, Certification, CertificationImages},
    evaluate::{self, NoUnitResults},
    model::{Mode, Network},
    shard::Shard,
};
use datjob_api::{report::FailureReason, training::Architecture};
use datjob_data::Images;
use datjob_trainer::engine::TrainError;
use tch::{Device, Kind, Tensor};

use super::{assert_almost_equal, evaluate_pgd, gpu, random_pixels, values};

#[test]
fn reports_out_of_memory_and_the_device_stays_usable() {
    let Some((_, _lock)) = gpu() else { return };
    let error = Tensor::f_zeros([1 << 45], (Kind::Float, Device::Cuda(0))).unwrap_err();
    let error = TrainError::from(error);
    assert_eq!(error.reason(), FailureReason::OutOfMemory, "{error}");
    let small = Tensor::ones([4], (Kind::Float, Device::Cuda(0)));
    assert_eq!(values(&small), [1.0; 4]);
}

#[test]
fn evaluation_and_certification_fit_in_little_memory() {
    const ROOM: i64 = 256 << 20;
    let Some((_, _lock)) = gpu() else { return };
    let (device, shape) = (Device::Cuda(0), [3, 32, 32]);
    let network = Network::new(&Architecture::Resnet18.into(), shape, 10, 3, (Kind::Float, device)).unwrap();
    // With the network's own classes as labels, most images are certified.
    let pixels = random_pixels(shape, 250);
    let unlabelled = Images::new(shape, pixels.clone(), vec![0; 250]);
    let all: Vec<usize> = (0..250).collect();
    let classes = evaluate::predict(&network, &unlabelled, &all, 250, device).unwrap();
    let images = Images::new(shape, pixels, classes.into_iter().map(|class| class as u16).collect());
    let certification = Certification { sigma: 0.1, selection_samples: 100, samples: 2000, alpha: 0.001 };
    let certified = || {
        let images = CertificationImages { images: &images, count: 10, device };
        certify::count_certified(
            &network,
            &certification,
            images,
            1,
            Shard::WHOLE,
            &mut NoUnitResults,
            &mut |_| {},
        )
        .unwrap()
    };
    let expected = (evaluate_pgd(&network, &images, device), certified());
    let _ballast = Ballast::all_but(ROOM, device);
    let input = Tensor::zeros([250, 3, 32, 32], (Kind::Float, device));
    let error = TrainError::from(network.forward(&input, Mode::Eval).unwrap_err());
    assert_eq!(error.reason(), FailureReason::OutOfMemory, "{error}");
    let found = (evaluate_pgd(&network, &images, device), certified());
    println!("with enough memory {expected:?}, with little {found:?}");
    assert_almost_equal(&found.0, &expected.0);
    assert_eq!(found.1.last(), Some(&10));
    assert!(found.1[0] >= 5, "{found:?}");
    for (found, expected) in found.1.iter().zip(&expected.1) {
        assert!(found.abs_diff(*expected) <= 1);
    }
}

/// Tensors that occupy the memory of a device.
struct Ballast {
    tensors: Vec<Tensor>,
    device: Device,
}

impl Ballast {
    /// Occupies all free memory except `room` bytes.
    fn all_but(room: i64, device: Device) -> Self {
        let mut ballast = Self { tensors: Vec::new(), device };
        // A part of a block of the allocator could not be returned to the device.
        ballast.release_cached_memory();
        let room = Tensor::empty([room], (Kind::Uint8, device));
        for size in [1 << 30, 32 << 20, 4 << 20] {
            while let Ok(tensor) = Tensor::f_empty([size], (Kind::Uint8, device)) {
                ballast.tensors.push(tensor);
            }
        }
        drop(room);
        ballast.release_cached_memory();
        ballast
    }

    /// An allocation that cannot succeed makes the allocator return its free blocks to the device.
    fn release_cached_memory(&self) {
        assert!(Tensor::f_empty([1_i64 << 45], (Kind::Uint8, self.device)).is_err());
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        self.tensors.clear();
        // The next tests have processes of their own on this device.
        self.release_cached_memory();
    }
}
