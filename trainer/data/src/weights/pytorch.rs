//! Reads the archive of `torch.save`: a pickle that describes the tensors, and one file per storage.

use std::{
    collections::BTreeSet,
    io::{Read, Seek},
};

use zip::{ZipArchive, result::ZipError};

use super::{
    RawTensor, ScalarType,
    pickle::{Id, Object, Pickle, PickleError},
};

/// Maximum size of the pickle in bytes; it contains only names and shapes.
const PICKLE_MAX_BYTES: u64 = 64 << 20;
/// Maximum size of a storage in bytes.
const STORAGE_MAX_BYTES: u64 = 16 << 30;
/// Keys of the state dict in the checkpoints of common training scripts.
const STATE_DICT_KEYS: [&str; 5] = ["state_dict", "model_state_dict", "model", "net", "ema_state_dict"];
/// The prefix that DataParallel and DistributedDataParallel add to every name.
const MODULE_PREFIX: &str = "module.";

/// A PyTorch archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PytorchError {
    /// The zip archive is invalid.
    #[error("invalid PyTorch archive: {0}")]
    Archive(#[from] ZipError),
    /// The archive cannot be read.
    #[error("cannot read the archive: {0}")]
    Read(#[from] std::io::Error),
    /// The archive lacks data.pkl.
    #[error("invalid PyTorch archive: data.pkl is missing")]
    NoPickle,
    /// The elements are big-endian.
    #[error("unsupported byte order: big-endian; expected little-endian")]
    BigEndian,
    /// The pickle is invalid.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The pickle has no dictionary of tensors.
    #[error("state dict not found; save model.state_dict()")]
    NoStateDict,
    /// The pickle has several dictionaries with the same tensors.
    #[error(
        "several state dicts of the same network: {}; save the one to use, for example \
         torch.save(checkpoint[\"{}\"], \"weights.pt\")",
        .0.join(", "), .0.last().map_or("", String::as_str)
    )]
    Ambiguous(Vec<String>),
    /// The description of a tensor is invalid.
    #[error("tensor {name}: {problem}")]
    Tensor {
        /// The name of the tensor.
        name: String,
        /// The problem.
        problem: String,
    },
}

/// Reads the tensors of a state dict, in its order, without running any code of the pickle.
pub(super) fn read(file: impl Read + Seek) -> Result<Vec<(String, RawTensor)>, PytorchError> {
    let mut archive = ZipArchive::new(file)?;
    let root = archive
        .file_names()
        .filter_map(Result::ok)
        .find_map(|name| name.strip_suffix("data.pkl").map(str::to_owned))
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .ok_or(PytorchError::NoPickle)?;
    let byte_order = read_entry(&mut archive, &format!("{root}byteorder"), 16);
    if byte_order.is_ok_and(|order| order.starts_with(b"big")) {
        return Err(PytorchError::BigEndian);
    }
    let pickle = Pickle::parse(&read_entry(&mut archive, &format!("{root}data.pkl"), PICKLE_MAX_BYTES)?)?;
    let items = state_dict(&pickle)?.ok_or(PytorchError::NoStateDict)?;
    items
        .into_iter()
        .map(|(name, arguments)| {
            let tensor = read_tensor(&mut archive, &root, &pickle, arguments, &name)?;
            Ok((name.strip_prefix(MODULE_PREFIX).unwrap_or(&name).to_owned(), tensor))
        })
        .collect()
}

/// Reads a file of the archive of at most `limit` bytes.
fn read_entry<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    name: &str,
    limit: u64,
) -> Result<Vec<u8>, PytorchError> {
    let mut content = Vec::new();
    let read = archive.by_name(name)?.take(limit + 1).read_to_end(&mut content)?;
    if read as u64 > limit {
        let problem = format!("{name} is too large: must be at most {limit} bytes");
        return Err(std::io::Error::other(problem).into());
    }
    Ok(content)
}

/// A state dict, as names and arguments of tensors.
type StateDict<'a> = Vec<(String, &'a [Id])>;

/// The state dict: the value of a known key, or else the dictionary itself. A second dictionary with tensors of the same names
/// could be the one that is wanted, for example averaged weights.
fn state_dict(pickle: &Pickle) -> Result<Option<StateDict<'_>>, PytorchError> {
    let Object::Dictionary(items) = pickle.root() else { return Ok(None) };
    let dictionary = |value: Id| match pickle.get(value) {
        Object::Dictionary(items) => Some(tensors(pickle, items)).filter(|tensors| !tensors.is_empty()),
        _ => None,
    };
    let known = STATE_DICT_KEYS.iter().find_map(|expected| {
        let (_, value) = items.iter().find(|(key, _)| is_text(pickle.get(*key), expected))?;
        Some((*expected, *value, dictionary(*value)?))
    });
    let Some((key, value, found)) = known else {
        return Ok(Some(tensors(pickle, items)).filter(|tensors| !tensors.is_empty()));
    };
    let names = |tensors: &StateDict<'_>| -> BTreeSet<String> {
        let strip = |name: &str| name.strip_prefix(MODULE_PREFIX).unwrap_or(name).to_owned();
        tensors.iter().map(|(name, _)| strip(name)).collect()
    };
    let wanted = names(&found);
    // One dictionary may stand under many keys: it is looked at once.
    let mut seen = BTreeSet::from([value]);
    let mut same = vec![key.to_owned()];
    for (key, value) in items {
        if let Object::Text(key) = pickle.get(*key)
            && seen.insert(*value)
            && dictionary(*value).is_some_and(|other| names(&other) == wanted)
        {
            same.push(key.clone());
        }
    }
    if same.len() > 1 { Err(PytorchError::Ambiguous(same)) } else { Ok(Some(found)) }
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

/// Reads a tensor from the arguments of `_rebuild_tensor_v2(storage, offset, size, stride, …)`.
fn read_tensor<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    root: &str,
    pickle: &Pickle,
    arguments: &[Id],
    name: &str,
) -> Result<RawTensor, PytorchError> {
    let problem = |problem: &str| PytorchError::Tensor { name: name.to_owned(), problem: problem.to_owned() };
    let unsupported = || problem("unsupported description; expected the format of torch.save");
    let &[storage, offset, size, stride, ..] = arguments else { return Err(unsupported()) };
    let (dtype, key) = storage_type_and_key(pickle, storage).ok_or_else(unsupported)?;
    let dtype =
        dtype.ok_or_else(|| problem("unsupported type; expected floating-point numbers or integers"))?;
    let offset = integer(pickle, offset).ok_or_else(unsupported)?;
    let size = integers(pickle, size).ok_or_else(unsupported)?;
    let stride = integers(pickle, stride).ok_or_else(unsupported)?;
    let bytes = read_entry(archive, &format!("{root}data/{key}"), STORAGE_MAX_BYTES)?;
    let element_size = dtype.size();
    let elements = (bytes.len() / element_size) as i64;
    if !is_within_storage(offset, &size, &stride, elements) {
        return Err(problem("out of range: the tensor exceeds its storage"));
    }
    let bytes = row_major(bytes, element_size, offset, &size, &stride);
    Ok(RawTensor { dtype, shape: size, bytes })
}

/// The elements of a tensor in row-major order. The tensor must be [within its storage](is_within_storage).
fn row_major(storage: Vec<u8>, element_size: usize, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
    let count = size.iter().product::<i64>() as usize;
    let start = offset as usize * element_size;
    if is_row_major(size, stride) {
        let end = start + count * element_size;
        if start == 0 && end == storage.len() {
            return storage;
        }
        return storage.get(start..end).unwrap_or_default().to_vec();
    }
    let mut bytes = Vec::with_capacity(count * element_size);
    let mut index = vec![0; size.len()];
    for _ in 0..count {
        let position = index.iter().zip(stride).map(|(index, step)| index * step).sum::<i64>() as usize;
        bytes.extend_from_slice(&storage[start + position * element_size..][..element_size]);
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

/// Whether the elements are contiguous in row-major order. The stride of a dimension of size 1 does not matter.
fn is_row_major(size: &[i64], stride: &[i64]) -> bool {
    let mut expected = 1;
    size.iter().zip(stride).rev().all(|(&length, &step)| {
        let fits = length <= 1 || step == expected;
        expected *= length.max(1);
        fits
    })
}

/// Whether every element of a tensor is within a storage of `elements` elements.
fn is_within_storage(offset: i64, size: &[i64], stride: &[i64], elements: i64) -> bool {
    if size.len() != stride.len() || offset < 0 || size.iter().chain(stride).any(|&length| length < 0) {
        return false;
    }
    if size.contains(&0) {
        return offset <= elements;
    }
    // At most as many elements as the storage has: strides of 0 could expand a small file to a large tensor.
    let count = size.iter().try_fold(1_i64, |product, &length| product.checked_mul(length));
    let last = size
        .iter()
        .zip(stride)
        .try_fold(offset, |last, (&length, &step)| last.checked_add((length - 1).checked_mul(step)?));
    count.is_some_and(|count| count <= elements) && last.is_some_and(|last| last < elements)
}

/// The element type and the key of a storage, from its persistent ID ("storage", class, key, device, count).
fn storage_type_and_key(pickle: &Pickle, id: Id) -> Option<(Option<ScalarType>, &str)> {
    let Object::Persistent(description) = pickle.get(id) else { return None };
    let Object::Sequence(parts) = pickle.get(*description) else { return None };
    let &[tag, class, key, ..] = parts.as_slice() else { return None };
    let (Object::Global(_, class), Object::Text(key)) = (pickle.get(class), pickle.get(key)) else {
        return None;
    };
    let dtype = match class.as_str() {
        "FloatStorage" => Some(ScalarType::F32),
        "DoubleStorage" => Some(ScalarType::F64),
        "HalfStorage" => Some(ScalarType::F16),
        "BFloat16Storage" => Some(ScalarType::BF16),
        "LongStorage" => Some(ScalarType::I64),
        "IntStorage" => Some(ScalarType::I32),
        "ShortStorage" => Some(ScalarType::I16),
        "CharStorage" => Some(ScalarType::I8),
        "ByteStorage" => Some(ScalarType::U8),
        _ => None,
    };
    is_text(pickle.get(tag), "storage").then_some((dtype, key))
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
    fn strided_tensors_become_row_major() {
        let storage: Vec<u8> = (0..12).collect();
        let rows = |offset, size: &[i64], stride: &[i64]| row_major(storage.clone(), 2, offset, size, stride);
        assert_eq!(rows(0, &[2, 3], &[3, 1]), storage);
        assert_eq!(rows(1, &[2], &[1]), [2, 3, 4, 5]);
        assert_eq!(rows(0, &[3, 2], &[1, 3]), [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11], "transposed");
        assert_eq!(rows(5, &[], &[]), [10, 11], "a scalar");
        assert_eq!(rows(6, &[0, 3], &[3, 1]), [0; 0], "empty");
        assert_eq!(rows(0, &[1, 2], &[99, 1]), [0, 1, 2, 3], "the stride of a dimension of size 1");
    }

    #[test]
    fn tensors_outside_their_storage_are_detected() {
        assert!(is_within_storage(0, &[2, 3], &[3, 1], 6));
        assert!(is_within_storage(2, &[2, 2], &[1, 2], 6));
        assert!(is_within_storage(6, &[0, 3], &[3, 1], 6));
        assert!(is_within_storage(5, &[], &[], 6));
        assert!(!is_within_storage(1, &[2, 3], &[3, 1], 6));
        assert!(!is_within_storage(0, &[7], &[0], 6), "zero strides must not expand a storage");
        assert!(!is_within_storage(0, &[2], &[-1], 6));
        assert!(!is_within_storage(-1, &[1], &[1], 6));
        assert!(!is_within_storage(0, &[i64::MAX, 2], &[1, 1], 6));
        assert!(!is_within_storage(0, &[2], &[i64::MAX], 6));
        assert!(!is_within_storage(0, &[1], &[1, 1], 6));
    }
}
