//! NumPy archives (`.npz`).

use std::{fs::File, io::Write, path::Path};

use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// Writes greyscale images of 28 × 28 pixels, and labels if given.
pub(crate) fn write(path: &Path, pixels: &[u8], labels: Option<&[u8]>) {
    let count = pixels.len() / (28 * 28);
    let mut writer = ZipWriter::new(File::create(path).unwrap());
    let mut add = |name: &str, shape: &str, bytes: &[u8]| {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        writer.start_file(name, stored).unwrap();
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        for part in [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes] {
            writer.write_all(part).unwrap();
        }
    };
    add("image.npy", &format!("({count}, 28, 28)"), pixels);
    if let Some(labels) = labels {
        add("label.npy", &format!("({count},)"), labels);
    }
    writer.finish().unwrap();
}
