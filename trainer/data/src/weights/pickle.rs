//! Reads the pickles that `torch.save` writes for dictionaries of tensors, without running anything: of Python's objects
//! only plain values, dictionaries and tensors come to life; whatever else a pickle asks to be made becomes
//! [`Object::Other`].
//!
//! The opcodes are those of protocols 2 to 4 as Python's `pickletools` describes them.

/// Most objects that a pickle may make: a million tensors with their names and strides.
const MOST_OBJECTS: usize = 20_000_000;

/// A pickle that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PickleError {
    /// It ends in the middle.
    #[error("truncated pickle: it ends at byte {0} within an instruction")]
    End(usize),
    /// An instruction that `torch.save` does not write.
    #[error("unsupported pickle opcode {opcode:#04x} at byte {at}")]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Where.
        at: usize,
    },
    /// An instruction that does not fit what came before.
    #[error("invalid pickle: unexpected instruction at byte {0}")]
    Malformed(usize),
    /// More objects than a dictionary of tensors needs.
    #[error("pickle too large: it has more than {MOST_OBJECTS} objects")]
    TooLarge,
}

/// An object of a [`Pickle`], by its number.
pub(super) type Id = usize;

/// What a pickle made.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    /// None, a number with a point, or anything that is not needed.
    Other,
    /// An integer or a truth value.
    Integer(i64),
    /// A string.
    Text(String),
    /// A tuple or a list.
    Sequence(Vec<Id>),
    /// A dictionary, in its order.
    Dictionary(Vec<(Id, Id)>),
    /// A class or function, by module and name.
    Global(String, String),
    /// What the file keeps outside of the pickle: its description.
    Persistent(Id),
    /// `torch._utils._rebuild_tensor_v2` of these arguments.
    Tensor(Vec<Id>),
}

/// All objects of a pickle, and which of them it is.
#[derive(Debug)]
pub(super) struct Pickle {
    objects: Vec<Object>,
    root: Id,
}

impl Pickle {
    /// Reads a pickle.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PickleError> {
        let mut machine = Machine {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
        };
        let root = machine.run()?;
        Ok(Self { objects: machine.objects, root })
    }

    /// What the pickle is.
    pub(super) fn root(&self) -> &Object {
        self.get(self.root)
    }

    /// An object.
    pub(super) fn get(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::Other)
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, PickleError> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode, at)?;
        }
    }

    fn step(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        match opcode {
            // PROTO, FRAME: nothing to do.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'}' => self.push(Object::Dictionary(Vec::new())),
            b']' | b')' => self.push(Object::Sequence(Vec::new())),
            b't' | b'l' => {
                let items = self.since_mark()?;
                self.push(Object::Sequence(items))
            }
            0x85..=0x87 => {
                let from = self.height(usize::from(opcode - 0x84))?;
                let items = self.stack.split_off(from);
                self.push(Object::Sequence(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item], at)
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items, at)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value], at)
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items, at)
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Global(module, name))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = match (self.object(module), self.object(name)) {
                    (Object::Text(module), Object::Text(name)) if module.len().max(name.len()) < 256 => {
                        Object::Global(module.clone(), name.clone())
                    }
                    _ => return Err(PickleError::Malformed(at)),
                };
                self.push(global)
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let made = self.call(callable, arguments);
                self.push(made)
            }
            // POP; BUILD: an object's attributes, of which none is needed.
            b'0' | b'b' => self.pop().map(drop),
            b'Q' => {
                let description = self.pop()?;
                self.push(Object::Persistent(description))
            }
            b'q' => {
                let place = usize::from(self.byte()?);
                self.remember(place)
            }
            b'r' => {
                let place = u32::from_le_bytes(self.array()?) as usize;
                self.remember(place)
            }
            0x94 => self.remember(self.memo.len()),
            b'h' => {
                let place = usize::from(self.byte()?);
                self.recall(place, at)
            }
            b'j' => {
                let place = u32::from_le_bytes(self.array()?) as usize;
                self.recall(place, at)
            }
            _ => self.literal(opcode, at),
        }
    }

    /// Instructions that push a plain value.
    fn literal(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        match opcode {
            b'N' => self.push(Object::Other),
            b'G' => {
                self.take(8)?;
                self.push(Object::Other)
            }
            0x88 => self.push(Object::Integer(1)),
            0x89 => self.push(Object::Integer(0)),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Object::Integer(i64::from(number)))
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Object::Integer(i64::from(number)))
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Object::Integer(i64::from(number)))
            }
            0x8a => self.long(),
            b'X' => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                self.text(length)
            }
            b'U' | 0x8c => {
                let length = usize::from(self.byte()?);
                self.text(length)
            }
            _ => Err(PickleError::Opcode { opcode, at }),
        }
    }

    /// What a call gives, of the calls that a dictionary of tensors is made of.
    fn call(&self, callable: Id, arguments: Id) -> Object {
        let (Object::Global(module, name), Object::Sequence(arguments)) =
            (self.object(callable), self.object(arguments))
        else {
            return Object::Other;
        };
        match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") => Object::Dictionary(Vec::new()),
            // Six are used; a copy of many, again and again, would fill the memory.
            ("torch._utils", "_rebuild_tensor_v2") => {
                Object::Tensor(arguments.iter().take(6).copied().collect())
            }
            // The tensor of a parameter.
            ("torch._utils", "_rebuild_parameter") => match arguments.first().map(|&id| self.object(id)) {
                Some(Object::Tensor(arguments)) => Object::Tensor(arguments.clone()),
                _ => Object::Other,
            },
            _ => Object::Other,
        }
    }

    fn object(&self, id: Id) -> &Object {
        self.objects.get(id).unwrap_or(&Object::Other)
    }

    fn push(&mut self, object: Object) -> Result<(), PickleError> {
        if self.objects.len() >= MOST_OBJECTS {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        self.height(1)?;
        self.stack.pop().ok_or(PickleError::Malformed(self.at))
    }

    /// The height of the stack below so many objects, none of which may lie below a mark.
    fn height(&self, objects: usize) -> Result<usize, PickleError> {
        let lowest = self.marks.last().copied().unwrap_or(0);
        let height = self.stack.len().checked_sub(objects).filter(|&height| height >= lowest);
        height.ok_or(PickleError::Malformed(self.at))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or(PickleError::Malformed(self.at))?;
        Ok(self.stack.split_off(mark))
    }

    /// The object on top of the stack, to be added to.
    fn top(&mut self, at: usize) -> Result<&mut Object, PickleError> {
        self.height(1)?;
        let id = self.stack.last().copied().ok_or(PickleError::Malformed(at))?;
        self.objects.get_mut(id).ok_or(PickleError::Malformed(at))
    }

    fn append(&mut self, new: &[Id], at: usize) -> Result<(), PickleError> {
        match self.top(at)? {
            Object::Sequence(items) => items.extend(new),
            Object::Other => {}
            _ => return Err(PickleError::Malformed(at)),
        }
        Ok(())
    }

    fn set(&mut self, new: &[Id], at: usize) -> Result<(), PickleError> {
        match self.top(at)? {
            Object::Dictionary(items) if new.len().is_multiple_of(2) => {
                items.extend(new.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            Object::Other => {}
            _ => return Err(PickleError::Malformed(at)),
        }
        Ok(())
    }

    fn remember(&mut self, place: usize) -> Result<(), PickleError> {
        let top = self.stack.last().copied().ok_or(PickleError::Malformed(self.at))?;
        // Places rise by one; a pickle that skips many is none of ours.
        if place > self.memo.len() + 1000 {
            return Err(PickleError::Malformed(self.at));
        }
        if place >= self.memo.len() {
            self.memo.resize(place + 1, None);
        }
        self.memo[place] = Some(top);
        Ok(())
    }

    fn recall(&mut self, place: usize, at: usize) -> Result<(), PickleError> {
        let id = self.memo.get(place).copied().flatten().ok_or(PickleError::Malformed(at))?;
        if self.stack.len() >= MOST_OBJECTS {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(id);
        Ok(())
    }

    fn long(&mut self) -> Result<(), PickleError> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        // An integer of more than 64 bits is no size, stride or offset.
        let number = match extended.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Object::Integer(i64::from_le_bytes(extended))
            }
            None => Object::Other,
        };
        self.push(number)
    }

    fn text(&mut self, length: usize) -> Result<(), PickleError> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Object::Text(text))
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::End(self.bytes.len()))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| PickleError::End(self.at))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or(PickleError::End(self.at))?;
        self.at += count;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_values_are_read() {
        // {"a": (1, -2, True), "b": []} by pickle.dumps(…, protocol=2).
        let bytes = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xff\x88\x87q\x02X\x01\x00\x00\x00bq\x03]q\x04u.";
        let pickle = Pickle::read(bytes).unwrap();
        let Object::Dictionary(items) = pickle.root() else { panic!("{:?}", pickle.root()) };
        let (key, value) = items[0];
        assert_eq!(pickle.get(key), &Object::Text("a".to_owned()));
        let Object::Sequence(numbers) = pickle.get(value) else { panic!("{:?}", pickle.get(value)) };
        let numbers: Vec<&Object> = numbers.iter().map(|&id| pickle.get(id)).collect();
        assert_eq!(numbers, [&Object::Integer(1), &Object::Integer(-2), &Object::Integer(1)]);
        assert_eq!(pickle.get(items[1].1), &Object::Sequence(vec![]));
    }

    #[test]
    fn what_would_run_code_makes_nothing() {
        // os.system("true") by protocol 2.
        let pickle = Pickle::read(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").unwrap();
        assert_eq!(pickle.root(), &Object::Other);
    }

    #[test]
    fn damage_has_a_sentence() {
        for (bytes, error) in [
            (&b"\x80\x02}q"[..], PickleError::End(4)),
            (b"\x80\x02u.", PickleError::Malformed(3)),
            (b"\x80\x02K\x01(0.", PickleError::Malformed(6)),
            (b"\x80\x02h\x05.", PickleError::Malformed(2)),
            (b"\x80\x02i", PickleError::Opcode { opcode: b'i', at: 2 }),
            (b"\x80\x02cos", PickleError::End(5)),
            (b"\x80\x02K\x01r\xff\xff\xff\xff.", PickleError::Malformed(9)),
        ] {
            assert_eq!(Pickle::read(bytes).unwrap_err(), error);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Pickle::read(&bytes);
        }

        /// Bytes that look like a pickle.
        #[test]
        fn any_instructions_are_read_or_refused(
            bytes in prop::collection::vec(prop::sample::select(&b"(}])tuaesqhK\x01\x02cos\n\x85\x86R.QNX\x00\x94"[..]), 0..300)
        ) {
            let _ = Pickle::read(&bytes);
        }
    }
}
