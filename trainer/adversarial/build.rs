//! Lets the binaries of this package find libtorch: beside themselves in an image, where it was built elsewhere.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    if let Ok(library) = env::var("DEP_DATJOB_C10D_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{library}");
    }
}
