//! The supported data sets and their properties. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Data set in its standard files, or the user's images in a standard layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dataset {
    /// MNIST: 28×28 grey images of digits, IDX files (gzipped or not).
    Mnist,
    /// Fashion-MNIST: 28×28 grey images of clothing, IDX files (gzipped or not).
    FashionMnist,
    /// CIFAR-10: 32×32 colour images in 10 classes, binary version.
    Cifar10,
    /// CIFAR-100: 32×32 colour images in 100 classes (fine labels), binary version.
    Cifar100,
    /// JPEG files in one folder per class, the layout of ImageNet: train/CLASS/NAME.jpg and val/CLASS/NAME.jpg (or
    /// test/).
    ImageFolder,
    /// JPEG files and their classes in tar files: KEY.jpg and KEY.cls in train-*.tar and val-*.tar (or test-*.tar).
    Webdataset,
}

/// Properties of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Shape of an image: channels, height, width.
    pub image_shape: [i64; 3],
    /// Number of classes.
    pub classes: i64,
    /// Number of training images, including the validation split.
    pub training_images: usize,
    /// Number of test images.
    pub test_images: usize,
}

impl Contents {
    /// MNIST and Fashion-MNIST.
    pub const MNIST: Self = Self::standard([1, 28, 28], 10, 60_000);
    /// CIFAR-10.
    pub const CIFAR_10: Self = Self::standard([3, 32, 32], 10, 50_000);
    /// CIFAR-100.
    pub const CIFAR_100: Self = Self::standard([3, 32, 32], 100, 50_000);

    const fn standard(image_shape: [i64; 3], classes: i64, training_images: usize) -> Self {
        Self { image_shape, classes, training_images, test_images: 10_000 }
    }
}

impl Dataset {
    /// All data sets.
    pub const ALL: [Self; 6] =
        [Self::Mnist, Self::FashionMnist, Self::Cifar10, Self::Cifar100, Self::ImageFolder, Self::Webdataset];

    /// The name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::ImageFolder => "image-folder",
            Self::Webdataset => "webdataset",
        }
    }

    /// Properties of the standard files, or `None` if they depend on the user's files.
    pub fn contents(self) -> Option<Contents> {
        match self {
            Self::Mnist | Self::FashionMnist => Some(Contents::MNIST),
            Self::Cifar10 => Some(Contents::CIFAR_10),
            Self::Cifar100 => Some(Contents::CIFAR_100),
            Self::ImageFolder | Self::Webdataset => None,
        }
    }

    /// Channels of an image.
    pub fn channels(self) -> i64 {
        self.contents().map_or(3, |contents| contents.image_shape[0])
    }

    /// Whether the images are encoded and of any size. They are decoded and resized to `imageSize` during training.
    pub fn is_encoded(self) -> bool {
        self.contents().is_none()
    }

    /// Default of `augmentation.flip`: true, except for digits, which are not symmetric.
    pub fn flips_by_default(self) -> bool {
        match self {
            Self::Mnist => false,
            Self::FashionMnist | Self::Cifar10 | Self::Cifar100 | Self::ImageFolder | Self::Webdataset => {
                true
            }
        }
    }

    /// Default of `augmentation.crop`, in pixels.
    pub fn crop_by_default(self) -> u32 {
        match self {
            Self::Mnist | Self::FashionMnist | Self::ImageFolder | Self::Webdataset => 0,
            Self::Cifar10 | Self::Cifar100 => 4,
        }
    }
}
