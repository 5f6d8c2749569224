//! Connections, and what every request passes before a handler sees it.

pub(crate) mod body;
pub(crate) mod guard;
pub(crate) mod listen;
pub(crate) mod patient;
pub(crate) mod stream;
