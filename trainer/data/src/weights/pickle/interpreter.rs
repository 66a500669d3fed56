//! The stack machine of pickle, restricted to data. Pure.
//!
//! The opcodes are those of protocols 2 to 4, as described by Python's `pickletools`.

use super::{Id, MAX_OBJECTS, Object, PickleError};

/// The state of the pickle machine.
pub(super) struct Interpreter<'a> {
    bytes: &'a [u8],
    position: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// The stack height at each mark.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
        }
    }

    /// Runs all instructions. Returns the objects and the index of the top-level object.
    pub(super) fn run(mut self) -> Result<(Vec<Object>, Id), PickleError> {
        loop {
            let at = self.position;
            let opcode = self.read_byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok((self.objects, root));
            }
            self.step(opcode, at)?;
        }
    }

    fn step(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        match opcode {
            // PROTO and FRAME have no effect.
            0x80 => self.read_bytes(1).map(drop),
            0x95 => self.read_bytes(8).map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'}' => self.push(Object::Dictionary(Vec::new())),
            b']' | b')' => self.push(Object::Sequence(Vec::new())),
            b't' | b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Sequence(items))
            }
            0x85..=0x87 => {
                let start = self.height_below(usize::from(opcode - 0x84))?;
                let items = self.stack.split_off(start);
                self.push(Object::Sequence(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item], at)
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(&items, at)
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value], at)
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items, at)
            }
            b'c' => {
                let (module, name) = (self.read_line()?, self.read_line()?);
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
                let object = self.call(callable, arguments);
                self.push(object)
            }
            // POP, and BUILD, which sets attributes; none are needed.
            b'0' | b'b' => self.pop().map(drop),
            b'Q' => {
                let persistent_id = self.pop()?;
                self.push(Object::Persistent(persistent_id))
            }
            b'q' => {
                let key = usize::from(self.read_byte()?);
                self.memoize(key)
            }
            b'r' => {
                let key = u32::from_le_bytes(self.read_array()?) as usize;
                self.memoize(key)
            }
            0x94 => self.memoize(self.memo.len()),
            b'h' => {
                let key = usize::from(self.read_byte()?);
                self.push_memo(key, at)
            }
            b'j' => {
                let key = u32::from_le_bytes(self.read_array()?) as usize;
                self.push_memo(key, at)
            }
            _ => self.push_literal(opcode, at),
        }
    }

    /// Runs an instruction that pushes a plain value.
    fn push_literal(&mut self, opcode: u8, at: usize) -> Result<(), PickleError> {
        match opcode {
            b'N' => self.push(Object::Other),
            b'G' => {
                self.read_bytes(8)?;
                self.push(Object::Other)
            }
            0x88 => self.push(Object::Integer(1)),
            0x89 => self.push(Object::Integer(0)),
            b'J' => {
                let number = i32::from_le_bytes(self.read_array()?);
                self.push(Object::Integer(i64::from(number)))
            }
            b'K' => {
                let number = self.read_byte()?;
                self.push(Object::Integer(i64::from(number)))
            }
            b'M' => {
                let number = u16::from_le_bytes(self.read_array()?);
                self.push(Object::Integer(i64::from(number)))
            }
            0x8a => self.push_long(),
            b'X' => {
                let length = u32::from_le_bytes(self.read_array()?) as usize;
                self.push_text(length)
            }
            b'U' | 0x8c => {
                let length = usize::from(self.read_byte()?);
                self.push_text(length)
            }
            _ => Err(PickleError::UnsupportedOpcode { opcode, at }),
        }
    }

    /// The result of a call. Only the functions that `torch.save` uses for tensors are known.
    fn call(&self, callable: Id, arguments: Id) -> Object {
        let (Object::Global(module, name), Object::Sequence(arguments)) =
            (self.object(callable), self.object(arguments))
        else {
            return Object::Other;
        };
        match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") => Object::Dictionary(Vec::new()),
            // Only six arguments are used. Repeated copies of long tuples could exhaust the memory.
            ("torch._utils", "_rebuild_tensor_v2") => {
                Object::Tensor(arguments.iter().take(6).copied().collect())
            }
            // A parameter wraps a tensor.
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
        if self.objects.len() >= MAX_OBJECTS {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(self.objects.len());
        self.objects.push(object);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        self.height_below(1)?;
        self.stack.pop().ok_or(PickleError::Malformed(self.position))
    }

    /// The stack height below the top `objects` objects. They must be above the last mark.
    fn height_below(&self, objects: usize) -> Result<usize, PickleError> {
        let lowest = self.marks.last().copied().unwrap_or(0);
        let height = self.stack.len().checked_sub(objects).filter(|&height| height >= lowest);
        height.ok_or(PickleError::Malformed(self.position))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or(PickleError::Malformed(self.position))?;
        Ok(self.stack.split_off(mark))
    }

    /// The object on top of the stack.
    fn top(&mut self, at: usize) -> Result<&mut Object, PickleError> {
        self.height_below(1)?;
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

    fn memoize(&mut self, key: usize) -> Result<(), PickleError> {
        let top = self.stack.last().copied().ok_or(PickleError::Malformed(self.position))?;
        // `torch.save` numbers its memo consecutively. Large gaps could exhaust the memory.
        if key > self.memo.len() + 1000 {
            return Err(PickleError::Malformed(self.position));
        }
        if key >= self.memo.len() {
            self.memo.resize(key + 1, None);
        }
        self.memo[key] = Some(top);
        Ok(())
    }

    fn push_memo(&mut self, key: usize, at: usize) -> Result<(), PickleError> {
        let id = self.memo.get(key).copied().flatten().ok_or(PickleError::Malformed(at))?;
        if self.stack.len() >= MAX_OBJECTS {
            return Err(PickleError::TooLarge);
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_long(&mut self) -> Result<(), PickleError> {
        let length = usize::from(self.read_byte()?);
        let bytes = self.read_bytes(length)?;
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        // Sizes, strides and offsets have at most 64 bits.
        let number = match extended.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Object::Integer(i64::from_le_bytes(extended))
            }
            None => Object::Other,
        };
        self.push(number)
    }

    fn push_text(&mut self, length: usize) -> Result<(), PickleError> {
        let text = String::from_utf8_lossy(self.read_bytes(length)?).into_owned();
        self.push(Object::Text(text))
    }

    fn read_line(&mut self) -> Result<String, PickleError> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let length =
            rest.iter().position(|&byte| byte == b'\n').ok_or(PickleError::Truncated(self.bytes.len()))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.position += length + 1;
        Ok(line)
    }

    fn read_byte(&mut self) -> Result<u8, PickleError> {
        self.read_array().map(|[byte]| byte)
    }

    fn read_array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let bytes = self.read_bytes(N)?;
        bytes.try_into().map_err(|_| PickleError::Truncated(self.position))
    }

    fn read_bytes(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.position.checked_add(count);
        let bytes = end
            .and_then(|end| self.bytes.get(self.position..end))
            .ok_or(PickleError::Truncated(self.position))?;
        self.position += count;
        Ok(bytes)
    }
}
