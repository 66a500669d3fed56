//! The data sets that the trainer reads, and what follows from each.

use serde::{Deserialize, Serialize};

/// A data set in its standard files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Dataset {
    /// MNIST: 28×28 grey digits, IDX files (gzipped or not).
    Mnist,
    /// Fashion-MNIST: 28×28 grey articles of clothing, IDX files (gzipped or not).
    FashionMnist,
    /// CIFAR-10: 32×32 colour images of 10 classes, the binary version.
    Cifar10,
    /// CIFAR-100: 32×32 colour images of 100 classes (fine labels), the binary version.
    Cifar100,
}

impl Dataset {
    /// The name as a manifest writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
        }
    }

    /// Number of classes.
    pub fn classes(self) -> i64 {
        match self {
            Self::Cifar100 => 100,
            Self::Mnist | Self::FashionMnist | Self::Cifar10 => 10,
        }
    }

    /// Shape of an image: channels, height, width.
    pub fn image_shape(self) -> [i64; 3] {
        match self {
            Self::Mnist | Self::FashionMnist => [1, 28, 28],
            Self::Cifar10 | Self::Cifar100 => [3, 32, 32],
        }
    }

    /// Number of training images in the standard files.
    pub fn training_images(self) -> usize {
        match self {
            Self::Mnist | Self::FashionMnist => 60_000,
            Self::Cifar10 | Self::Cifar100 => 50_000,
        }
    }

    /// Number of test images.
    pub fn test_images(self) -> usize {
        match self {
            Self::Mnist | Self::FashionMnist | Self::Cifar10 | Self::Cifar100 => 10_000,
        }
    }

    /// Whether training images are flipped left to right where the manifest does not say: a mirrored digit is another
    /// sign, a mirrored photograph is not.
    pub fn flips_by_default(self) -> bool {
        !matches!(self, Self::Mnist)
    }

    /// By how many pixels training images are padded and cropped at random where the manifest does not say.
    pub fn crop_by_default(self) -> u32 {
        match self {
            Self::Mnist | Self::FashionMnist => 0,
            Self::Cifar10 | Self::Cifar100 => 4,
        }
    }
}
