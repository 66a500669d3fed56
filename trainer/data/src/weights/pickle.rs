//! Parses the pickles that `torch.save` writes for dictionaries of tensors, without running code. Pure.
//!
//! Only plain values, dictionaries and tensors are created. Any other object of a pickle becomes [`Object::Other`].

mod interpreter;

use interpreter::Interpreter;

/// Maximum number of objects in a pickle: enough for a million tensors with names and strides.
const MAX_OBJECTS: usize = 20_000_000;

/// A pickle cannot be parsed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PickleError {
    /// The pickle ends within an instruction.
    #[error("truncated pickle: it ends at byte {0} within an instruction")]
    Truncated(usize),
    /// An instruction that `torch.save` does not write.
    #[error("unsupported pickle opcode {opcode:#04x} at byte {at}")]
    UnsupportedOpcode {
        /// The opcode.
        opcode: u8,
        /// Its position in bytes.
        at: usize,
    },
    /// An instruction does not match the state of the stack or the memo.
    #[error("invalid pickle: unexpected instruction at byte {0}")]
    Malformed(usize),
    /// The pickle has too many objects.
    #[error("pickle too large: it has more than {MAX_OBJECTS} objects")]
    TooLarge,
}

/// The index of an object of a [`Pickle`].
pub(super) type Id = usize;

/// An object of a pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    /// None, a floating-point number, or any object that is not needed.
    Other,
    /// An integer or a Boolean.
    Integer(i64),
    /// A string.
    Text(String),
    /// A tuple or a list.
    Sequence(Vec<Id>),
    /// A dictionary, in insertion order.
    Dictionary(Vec<(Id, Id)>),
    /// A class or function, by module and name.
    Global(String, String),
    /// An object outside the pickle: its persistent ID.
    Persistent(Id),
    /// A call of `torch._utils._rebuild_tensor_v2` with these arguments.
    Tensor(Vec<Id>),
}

/// The objects of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    root: Id,
}

impl Pickle {
    /// Parses a pickle.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, PickleError> {
        let (objects, root) = Interpreter::new(bytes).run()?;
        Ok(Self { objects, root })
    }

    /// The object that the pickle describes.
    pub(super) fn root(&self) -> &Object {
        self.get(self.root)
    }

    /// The object with this index.
    pub(super) fn get(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_plain_values() {
        // {"a": (1, -2, True), "b": []} by pickle.dumps(…, protocol=2).
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xff\x88\x87q\x02X\x01\x00\x00\x00bq\x03]q\x04u.";
        let pickle = Pickle::parse(bytes).unwrap();
        let Object::Dictionary(items) = pickle.root() else { panic!("{:?}", pickle.root()) };
        let (key, value) = items[0];
        assert_eq!(pickle.get(key), &Object::Text("a".to_owned()));
        let Object::Sequence(numbers) = pickle.get(value) else { panic!("{:?}", pickle.get(value)) };
        let numbers: Vec<&Object> = numbers.iter().map(|&id| pickle.get(id)).collect();
        assert_eq!(numbers, [&Object::Integer(1), &Object::Integer(-2), &Object::Integer(1)]);
        assert_eq!(pickle.get(items[1].1), &Object::Sequence(vec![]));
    }

    #[test]
    fn calls_of_other_functions_are_not_run() {
        // os.system("true") by protocol 2.
        let pickle = Pickle::parse(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
        assert_eq!(pickle.root(), &Object::Other);
    }

    #[test]
    fn rejects_invalid_pickles() {
        for (bytes, error) in [
            (&b"\x80\x02}q"[..], PickleError::Truncated(4)),
            (b"\x80\x02u.", PickleError::Malformed(3)),
            (b"\x80\x02K\x01(0.", PickleError::Malformed(6)),
            (b"\x80\x02h\x05.", PickleError::Malformed(2)),
            (b"\x80\x02i", PickleError::UnsupportedOpcode { opcode: b'i', at: 2 }),
            (b"\x80\x02cos", PickleError::Truncated(5)),
            (b"\x80\x02K\x01r\xff\xff\xff\xff.", PickleError::Malformed(9)),
        ] {
            assert_eq!(Pickle::parse(bytes).unwrap_err(), error);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Pickle::parse(&bytes);
        }

        /// Random instructions of a pickle.
        #[test]
        fn any_instructions_are_parsed_or_rejected(
            bytes in prop::collection::vec(prop::sample::select(&b"(}])tuaesqhK\x01\x02cos\n\x85\x86R.QNX\x00\x94"[..]), 0..300)
        ) {
            let _ = Pickle::parse(&bytes);
        }
    }
}
