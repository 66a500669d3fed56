//! Compiles the C++ bridge and tells the linker, and the crates that depend on this one, where libtorch is.

use std::{env, fs, path::PathBuf};

const SOURCES: [&str; 6] =
    ["cpp/guard.cpp", "cpp/store.cpp", "cpp/group.cpp", "cpp/reducer.cpp", "cpp/tensor.cpp", "cpp/cuda.cpp"];

fn main() {
    // torch-sys says `links = "tch"`, so its build script's metadata reaches direct dependents under that name.
    let library = env::var_os("DEP_TCH_LIBTORCH_LIB")
        .or_else(|| env::var_os("DEP_TORCH_SYS_LIBTORCH_LIB"))
        .map(PathBuf::from)
        .expect("torch-sys must be a direct dependency: its build script reports the path of libtorch");
    let include = library.parent().expect("libtorch's lib folder has a parent folder").join("include");

    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-changed=plugin/plugin.h");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).debug(false).define("USE_C10D_GLOO", None);
    // As system headers, so that only our own code is warned about.
    let api = include.join("torch/csrc/api/include");
    for folder in [PathBuf::from("cpp/gloo-declarations"), include, api] {
        build.flag("-isystem").flag(folder);
    }
    // As one unit: most of the time goes into libtorch's headers, which are read once then.
    let unit = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bridge.cpp");
    let sources = SOURCES.map(|source| format!("#include \"{source}\"\n")).concat();
    fs::write(&unit, sources).expect("OUT_DIR can be written to");
    build.include(".").file(unit).compile("datjob_c10d");

    println!("cargo::rustc-link-search=native={}", library.display());
    for name in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib={name}");
    }
    // For this package's own tests only: a library's link arguments do not reach the binaries that use it. Those
    // set the same from DEP_DATJOB_C10D_LIBTORCH_LIB in their build script.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", library.display());
    println!("cargo::metadata=libtorch_lib={}", library.display());
}
