//! Faults of storage in a pod: calls on some files fail or wait.

use std::path::Path;

use rustix::io::Errno;

use crate::{interposer::interposer, root::in_container};

/// Calls that fail while the fault lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageFault {
    /// `open` or `write`.
    pub(crate) call: &'static str,
    /// Part of the paths of the files.
    pub(crate) path: &'static str,
    /// The error of the calls. Without one they wait until the fault is over.
    pub(crate) error: Option<Errno>,
}

impl StorageFault {
    /// The variables of a container that has the fault while `marker` exists. Each call that meets it adds a byte to `struck`.
    pub(crate) fn variables(&self, marker: &Path, struck: &Path) -> Vec<String> {
        let file = |path: &Path| in_container(path).display().to_string();
        [
            ("LD_PRELOAD", file(interposer())),
            ("FAULT_CALL", self.call.to_owned()),
            ("FAULT_PATH", self.path.to_owned()),
            ("FAULT_ERRNO", self.error.map_or(0, Errno::raw_os_error).to_string()),
            ("FAULT_WHILE", file(marker)),
            ("FAULT_STRUCK", file(struck)),
        ]
        .map(|(name, value)| format!("{name}={value}"))
        .into()
    }
}
