//! Writes BTF, as a compiler would: include/uapi/linux/btf.h.

/// A blob that grows. Type ids count from 1.
pub(crate) struct Btf {
    types: Vec<u32>,
    strings: Vec<u8>,
    last: u32,
}

impl Btf {
    pub(crate) fn new() -> Self {
        Self { types: Vec::new(), strings: vec![0], last: 0 }
    }

    fn name(&mut self, name: &str) -> u32 {
        let at = self.strings.len();
        self.strings.extend(name.bytes().chain([0]));
        u32::try_from(at).unwrap()
    }

    fn add(&mut self, words: &[u32]) -> u32 {
        self.types.extend(words);
        self.last += 1;
        self.last
    }

    /// An integer of so many bytes.
    pub(crate) fn int(&mut self, size: u32, is_signed: bool) -> u32 {
        let name = self.name(&format!("{}{}", if is_signed { "i" } else { "u" }, size * 8));
        self.add(&[name, 1 << 24, size, (u32::from(is_signed) << 24) | (size * 8)])
    }

    pub(crate) fn array(&mut self, of: u32, len: u32) -> u32 {
        let index = self.int(4, false);
        self.add(&[0, 3 << 24, 0, of, index, len])
    }

    /// A struct with these members: name, type, first byte.
    pub(crate) fn structure(&mut self, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let mut words = vec![self.name("T"), 4 << 24 | u32::try_from(members.len()).unwrap(), size];
        for (name, ty, at) in members {
            words.extend([self.name(name), *ty, at * 8]);
        }
        self.add(&words)
    }

    pub(crate) fn typedef(&mut self, of: u32) -> u32 {
        let name = self.name("alias");
        self.add(&[name, 8 << 24, of])
    }

    /// The whole blob.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let types = u32::try_from(self.types.len() * 4).unwrap();
        let header = [0x0001_eb9f, 24, 0, types, types, u32::try_from(self.strings.len()).unwrap()];
        let words = header.iter().chain(&self.types);
        words.flat_map(|word| word.to_ne_bytes()).chain(self.strings.iter().copied()).collect()
    }
}
