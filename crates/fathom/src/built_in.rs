//! The models inside the program: what `fathom` without arguments serves.
//!
//! `models/nano/nano.gguf` was trained by the recipes of this repository (docs/zero.md) and is read where it lies in
//! the program's own file: nothing is unpacked or copied.

/// A model inside the program.
pub(crate) struct BuiltIn {
    /// By which commands and clients call it.
    pub(crate) name: &'static str,
    file: &'static Aligned<[u8]>,
}

/// The model that is served where none is named.
pub(crate) const DEFAULT: &str = NANO.name;

const NANO: BuiltIn = BuiltIn { name: "nano", file: &Aligned(*include_bytes!("../../../models/nano/nano.gguf")) };

/// Tensors of a GGUF file lie at multiples of 32 bytes from its start.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

impl BuiltIn {
    /// The model of a name, if there is one.
    pub(crate) fn find(name: &str) -> Option<&'static BuiltIn> {
        [&NANO].into_iter().find(|model| model.name == name)
    }

    /// The GGUF file.
    pub(crate) fn bytes(&self) -> &'static [u8] {
        &self.file.0
    }
}
