//! Privileges to create namespaces and mounts: those of root, or of root in a user namespace.

use std::{env, fs, os::unix::fs::MetadataExt, process::Command, thread};

/// Runs a test that creates namespaces. Without root privileges, the test runs in another process with a user namespace.
pub(crate) fn with_privileges(test: impl FnOnce()) {
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        test();
        return;
    }
    let thread = thread::current();
    // The test harness names the thread of a test after the test, unless there is only one thread.
    let name = thread.name().filter(|name| *name != "main");
    let name = name.expect("run as root, or with more than one test thread");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--include-ignored", "--nocapture"])
        .status()
        .unwrap();
    assert!(
        status.success(),
        "{name} failed in a user namespace; run as root if user namespaces are disabled"
    );
}
