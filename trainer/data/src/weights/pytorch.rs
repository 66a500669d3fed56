//! The archive of `torch.save`: a pickle that describes the tensors, and their numbers in files of their own.

use std::io::{Read, Seek};

use zip::{ZipArchive, result::ZipError};

use super::{
    NumberType, RawTensor,
    pickle::{Id, Object, Pickle, PickleError},
};

/// Largest pickle that is read, in bytes: it has names and shapes alone.
const PICKLE_MAX_BYTES: u64 = 64 << 20;
/// Largest storage that is read, in bytes.
const STORAGE_MAX_BYTES: u64 = 16 << 30;
/// Keys under which training scripts keep the state dict beside other things.
const WRAPPERS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "ema_state_dict"];
/// What DataParallel and DistributedDataParallel put before every name.
const MODULE: &str = "module.";

/// A PyTorch archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PytorchError {
    /// The archive.
    #[error("invalid PyTorch archive: {0}")]
    Archive(#[from] ZipError),
    /// Reading it.
    #[error("cannot read the archive: {0}")]
    Read(#[from] std::io::Error),
    /// It has no data.pkl.
    #[error("invalid PyTorch archive: data.pkl is missing")]
    NoPickle,
    /// Numbers in another order of bytes.
    #[error("unsupported byte order: big-endian; expected little-endian")]
    BigEndian,
    /// The pickle.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// No dictionary of tensors.
    #[error("state dict not found; save model.state_dict()")]
    NoStateDict,
    /// A tensor whose description makes no sense.
    #[error("tensor {name}: {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// The tensors of a state dict, in its order. Nothing that the archive names is run.
pub(super) fn read(file: impl Read + Seek) -> Result<Vec<(String, RawTensor)>, PytorchError> {
    let mut archive = ZipArchive::new(file)?;
    let root = archive
        .file_names()
        .filter_map(Result::ok)
        .find_map(|name| name.strip_suffix("data.pkl").map(str::to_owned))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .ok_or(PytorchError::NoPickle)?;
    let order = entry(&mut archive, &format!("{root}byteorder"), 16);
    if order.is_ok_and(|order| order.starts_with(b"big")) {
        return Err(PytorchError::BigEndian);
    }
    let pickle = Pickle::read(&entry(&mut archive, &format!("{root}data.pkl"), PICKLE_MAX_BYTES)?)?;
    let items = state_dict(&pickle).ok_or(PytorchError::NoStateDict)?;
    items
        .into_iter()
        .map(|(name, arguments)| {
            let tensor = tensor(&mut archive, &root, &pickle, arguments, &name)?;
            Ok((name.strip_prefix(MODULE).unwrap_or(&name).to_owned(), tensor))
        })
        .collect()
}

/// The content of a file of the archive.
fn entry<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    most: u64,
) -> Result<Vec<u8>, PytorchError> {
    let mut content = Vec::new();
    let read = archive.by_name(name)?.take(most + 1).read_to_end(&mut content)?;
    if read as u64 > most {
        let problem = format!("{name} is too large: must be at most {most} bytes");
        return Err(std::io::Error::other(problem).into());
    }
    Ok(content)
}

/// Names and tensors of the state dict: one that the dictionary holds, beside which other tensors may lie, or itself.
fn state_dict(pickle: &Pickle) -> Option<Vec<(String, &[Id])>> {
    let Object::Dictionary(items) = pickle.root() else { return None };
    let of = |items: &[(Id, Id)]| Some(tensors(pickle, items)).filter(|tensors| !tensors.is_empty());
    let wrapped = WRAPPERS.iter().find_map(|wrapper| {
        let (_, value) = items.iter().find(|(key, _)| is_text(pickle.get(*key), wrapper))?;
        let Object::Dictionary(items) = pickle.get(*value) else { return None };
        of(items)
    });
    wrapped.or_else(|| of(items))
}

fn is_text(object: &Object, expected: &str) -> bool {
    matches!(object, Object::Text(text) if text == expected)
}

fn tensors<'a>(pickle: &'a Pickle, items: &[(Id, Id)]) -> Vec<(String, &'a [Id])> {
    let tensor = |(key, value): &(Id, Id)| match (pickle.get(*key), pickle.get(*value)) {
        (Object::Text(name), Object::Tensor(arguments)) => Some((name.clone(), arguments.as_slice())),
        _ => None,
    };
    items.iter().filter_map(tensor).collect()
}

/// A tensor of `_rebuild_tensor_v2(storage, offset, size, stride, …)`.
fn tensor<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    root: &str,
    pickle: &Pickle,
    arguments: &[Id],
    name: &str,
) -> Result<RawTensor, PytorchError> {
    let problem = |problem: &str| PytorchError::Tensor { name: name.to_owned(), problem: problem.to_owned() };
    let shapeless = || problem("unsupported description; expected the format of torch.save");
    let &[storage, offset, size, stride, ..] = arguments else { return Err(shapeless()) };
    let (kind, key) = storage_of(pickle, storage).ok_or_else(shapeless)?;
    let kind =
        kind.ok_or_else(|| problem("unsupported type; expected floating-point numbers or integers"))?;
    let offset = integer(pickle, offset).ok_or_else(shapeless)?;
    let size = integers(pickle, size).ok_or_else(shapeless)?;
    let stride = integers(pickle, stride).ok_or_else(shapeless)?;
    let bytes = entry(archive, &format!("{root}data/{key}"), STORAGE_MAX_BYTES)?;
    let width = kind.width();
    let numbers = (bytes.len() / width) as i64;
    if !lies_within(offset, &size, &stride, numbers) {
        return Err(problem("out of range: the tensor exceeds its storage"));
    }
    let bytes = row_major(bytes, width, offset, &size, &stride);
    Ok(RawTensor { number_type: kind, shape: size, bytes })
}

/// The numbers of a tensor that [lies within](lies_within) a storage of numbers of `width` bytes, in row-major order.
fn row_major(storage: Vec<u8>, width: usize, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let count = size.iter().product::<i64>() as usize;
    let begin = offset as usize * width;
    if is_row_major(size, stride) {
        let end = begin + count * width;
        if begin == 0 && end == storage.len() {
            return storage;
        }
        return storage.get(begin..end).unwrap_or_default().to_vec();
    }
    let mut bytes = Vec::with_capacity(count * width);
    let mut index = vec![0; size.len()];
    for _ in 0..count {
        let place = index.iter().zip(stride).map(|(index, step)| index * step).sum::<i64>() as usize;
        bytes.extend_from_slice(&storage[begin + place * width..][..width]);
        for (index, &length) in index.iter_mut().zip(size).rev() {
            *index += 1;
            if *index < length {
                break;
            }
            *index = 0;
        }
    }
    bytes
}

/// Whether each number follows the one before it. Strides of lengths of 1 are never used.
fn is_row_major(size: &[i64], stride: &[i64]) -> bool {
    let mut expected = 1;
    size.iter().zip(stride).rev().all(|(&length, &step)| {
        let fits = length <= 1 || step == expected;
        expected *= length.max(1);
        fits
    })
}

/// Whether every number of a tensor is one of the storage's.
fn lies_within(offset: i64, size: &[i64], stride: &[i64], numbers: i64) -> bool {
    if size.len() != stride.len() || offset < 0 || size.iter().chain(stride).any(|&length| length < 0) {
        return false;
    }
    if size.contains(&0) {
        return offset <= numbers;
    }
    // As many numbers as the storage has, at most: strides of 0 would make a large tensor of a small file.
    let count = size.iter().try_fold(1_i64, |product, &length| product.checked_mul(length));
    let last = size
        .iter()
        .zip(stride)
        .try_fold(offset, |last, (&length, &step)| last.checked_add((length - 1).checked_mul(step)?));
    count.is_some_and(|count| count <= numbers) && last.is_some_and(|last| last < numbers)
}

/// Kind and key of a storage: the persistent ("storage", class, key, device, count).
fn storage_of(pickle: &Pickle, id: Id) -> Option<(Option<NumberType>, &str)> {
    let Object::Persistent(description) = pickle.get(id) else { return None };
    let Object::Sequence(parts) = pickle.get(*description) else { return None };
    let &[tag, class, key, ..] = parts.as_slice() else { return None };
    let (Object::Global(_, class), Object::Text(key)) = (pickle.get(class), pickle.get(key)) else {
        return None;
    };
    let kind = match class.as_str() {
        "FloatStorage" => Some(NumberType::F32),
        "DoubleStorage" => Some(NumberType::F64),
        "HalfStorage" => Some(NumberType::F16),
        "BFloat16Storage" => Some(NumberType::BF16),
        "LongStorage" => Some(NumberType::I64),
        "IntStorage" => Some(NumberType::I32),
        "ShortStorage" => Some(NumberType::I16),
        "CharStorage" => Some(NumberType::I8),
        "ByteStorage" => Some(NumberType::U8),
        _ => None,
    };
    is_text(pickle.get(tag), "storage").then_some((kind, key))
}

fn integer(pickle: &Pickle, id: Id) -> Option<i64> {
    match pickle.get(id) {
        Object::Integer(number) => Some(*number),
        _ => None,
    }
}

fn integers(pickle: &Pickle, id: Id) -> Option<Vec<i64>> {
    match pickle.get(id) {
        Object::Sequence(items) => items.iter().map(|&item| integer(pickle, item)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_are_followed_into_row_major_order() {
        let storage: Vec<u8> = (0..12).collect();
        let rows = |offset, size: &[i64], stride: &[i64]| row_major(storage.clone(), 2, offset, size, stride);
        assert_eq!(rows(0, &[2, 3], &[3, 1]), storage);
        assert_eq!(rows(1, &[2], &[1]), [2, 3, 4, 5]);
        assert_eq!(rows(0, &[3, 2], &[1, 3]), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11], "transposed");
        assert_eq!(rows(5, &[], &[]), [10, 11], "a scalar");
        assert_eq!(rows(6, &[0, 3], &[3, 1]), [0; 0], "nothing");
        assert_eq!(rows(0, &[1, 2], &[99, 1]), [0, 1, 2, 3], "a stride that no step is made of");
    }

    #[test]
    fn a_tensor_lies_within_its_storage() {
        assert!(lies_within(0, &[2, 3], &[3, 1], 6));
        assert!(lies_within(2, &[2, 2], &[1, 2], 6));
        assert!(lies_within(6, &[0, 3], &[3, 1], 6));
        assert!(lies_within(5, &[], &[], 6));
        assert!(!lies_within(1, &[2, 3], &[3, 1], 6));
        assert!(!lies_within(0, &[7], &[0], 6), "no large tensor of a small file");
        assert!(!lies_within(0, &[2], &[-1], 6));
        assert!(!lies_within(-1, &[1], &[1], 6));
        assert!(!lies_within(0, &[i64::MAX, 2], &[1, 1], 6));
        assert!(!lies_within(0, &[2], &[i64::MAX], 6));
        assert!(!lies_within(0, &[1], &[1, 1], 6));
    }
}
