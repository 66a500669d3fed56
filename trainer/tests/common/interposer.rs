//! The library that makes calls of the C library fail in the processes of a test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::test_directory::empty_directory;

/// Path of the library, for `LD_PRELOAD`. `tests/faults/interpose.cpp` describes the variables that it reads.
pub(crate) fn interposer() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = empty_directory("interposer").join("interpose.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/interpose.cpp");
        let mut compiler = Command::new("g++");
        compiler
            .args(["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source);
        assert!(compiler.status().unwrap().success());
        library
    })
}
