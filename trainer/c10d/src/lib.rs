//! Safe Rust bindings of libtorch's c10d, the library of PyTorch's distributed training: the [store](TcpStore) for
//! rendezvous, [process groups](ProcessGroup) with their collectives, and the [`Reducer`] that averages gradients during
//! the backward pass.
//!
//! The C++ in `cpp/` only calls libtorch. `cpp/bridge.h` declares the interface and `ffi` repeats it. No other crate of the
//! project has unsafe code.
//!
//! ```no_run
//! # fn main() -> Result<(), datjob_c10d::C10dError> {
//! use std::{net::Ipv4Addr, time::Duration};
//!
//! use datjob_c10d::{GlooDevice, GlooOptions, ProcessGroup, ReduceOp, TcpStore};
//! use tch::Tensor;
//!
//! let timeout = Duration::from_secs(30);
//! // In one process, which need not be a rank:
//! let host = TcpStore::host(Ipv4Addr::LOCALHOST.into(), 0, timeout)?;
//! // In every rank:
//! let store = TcpStore::connect("127.0.0.1", host.port(), timeout)?.prefix("gen-1")?;
//! let device = GlooDevice::Hostname("127.0.0.1".to_owned());
//! let options = GlooOptions { device, name: "gen-1".to_owned() };
//! let group = ProcessGroup::gloo(&store, 0, 1, timeout, &options)?;
//! let loss = Tensor::from(0.5);
//! group.all_reduce(&loss, ReduceOp::Sum)?;
//! # Ok(())
//! # }
//! ```

mod cuda;
mod error;
mod ffi;
mod hook;
mod libtorch_error;
mod log;
mod memory_format;
mod model_verification;
mod process_group;
mod reducer;
mod stack;
mod store;
mod waiting;
mod work;

pub use cuda::{Cuda, CudaDeviceProperties, CudaError, CudaEvent, CudaMemory, Transfer, allow_tf32};
pub use error::{C10dError, C10dErrorKind, ErrorDetails, Member};
pub use hook::BucketHook;
pub use libtorch_error::{LibtorchErrorKind, classify_libtorch_error, libtorch_message};
pub use log::{LogLevel, set_log_level};
pub use memory_format::{contiguous_channels_last, to_channels_last_};
pub use process_group::{CudaBackend, GlooDevice, GlooOptions, ProcessGroup, ReduceOp};
pub use reducer::{Reducer, ReducerOptions, ReducerStatistics, StepTimes};
pub use stack::print_main_stack;
pub use store::{Store, TcpStore};
pub use waiting::{Waiting, waits_begun, waits_in};
pub use work::Work;
