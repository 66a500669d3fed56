//! Sets where the binaries of this package search for libtorch at run time: in `../lib`, as in the image, and where it was at
//! build time.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    if let Ok(library) = env::var("DEP_DATJOB_C10D_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{library}");
    }
}
