//! Sets the run path of this package's tests to libtorch.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(library) = env::var("DEP_DATJOB_C10D_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{library}");
    }
}
