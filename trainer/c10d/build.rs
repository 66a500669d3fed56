//! Compiles the C++ bridge and passes the path of libtorch to the linker and to dependent crates.

use std::{env, fs, path::PathBuf};

const SOURCES: [&str; 7] = [
    "cpp/guard.cpp",
    "cpp/stack.cpp",
    "cpp/store.cpp",
    "cpp/group.cpp",
    "cpp/reducer.cpp",
    "cpp/tensor.cpp",
    "cpp/cuda.cpp",
];

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
    // As system headers, so that the compiler warns only about this crate's code.
    let api = include.join("torch/csrc/api/include");
    for folder in [PathBuf::from("cpp/gloo-declarations"), include, api] {
        build.flag("-isystem").flag(folder);
    }
    // As one unit, because most of the time is spent on libtorch's headers.
    let unit = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bridge.cpp");
    let sources = SOURCES.map(|source| format!("#include \"{source}\"\n")).concat();
    fs::write(&unit, sources).expect("OUT_DIR can be written to");
    build.include(".").file(unit).compile("datjob_c10d");

    println!("cargo::rustc-link-search=native={}", library.display());
    for name in ["torch_cpu", "c10"] {
        println!("cargo::rustc-link-lib={name}");
    }
    // Only for this package's tests: a library's link arguments do not apply to the binaries that use it. Their build
    // scripts set the same from DEP_DATJOB_C10D_LIBTORCH_LIB.
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", library.display());
    println!("cargo::metadata=libtorch_lib={}", library.display());
}
