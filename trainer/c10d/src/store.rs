//! The key-value store that processes use for rendezvous.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    ops::Deref,
    os::fd::IntoRawFd,
    ptr::{self, NonNull},
    slice,
    time::Duration,
};

use crate::{
    error::C10dError,
    ffi::{self, c_string, check, milliseconds},
    waiting::Waiting,
};

/// A key-value store shared by processes, or a prefix of one (see [`prefix`](Self::prefix)).
///
/// A store is one connection and performs one operation at a time. While one thread waits for a key, all other users of the
/// connection block, also those of another prefix. A thread that waits needs a separate connection.
#[derive(Debug)]
pub struct Store {
    handle: NonNull<ffi::Store>,
}

// SAFETY: a handle is a reference, counted atomically, to a store that is not bound to a thread.
unsafe impl Send for Store {}
// SAFETY: TCPStore locks each operation, PrefixStore is immutable, and the bridge's functions do not change handles.
unsafe impl Sync for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: this object owns the handle, which is not used again.
        unsafe { ffi::datjob_store_free(self.handle.as_ptr()) }
    }
}

impl Store {
    /// Calls a function of the bridge that creates a store.
    fn create(
        operation: &str,
        make: impl FnOnce(*mut *mut ffi::Store) -> std::ffi::c_int,
    ) -> Result<Self, C10dError> {
        let mut handle = ptr::null_mut();
        let result = check(make(&raw mut handle));
        result.map_err(|message| C10dError::from_store_message(operation, &message))?;
        let handle = NonNull::new(handle).expect("the bridge returns a store or an error");
        Ok(Self { handle })
    }

    /// A view of the store whose keys start with `prefix` and a slash. It shares the connection and keeps it open.
    pub fn prefix(&self, prefix: &str) -> Result<Self, C10dError> {
        let operation = format!("store prefix {prefix:?}");
        let prefix = c_string(prefix).map_err(|message| C10dError::invalid(&operation, None, message))?;
        // SAFETY: the store and the string live through the call, and `out` points to space for one pointer.
        Self::create(&operation, |out| unsafe {
            ffi::datjob_store_prefix(self.as_ptr(), prefix.as_ptr(), out)
        })
    }

    /// Sets a key. Returns when the value is sent. If the host has died, only the next operation may fail.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), C10dError> {
        let value = value.as_ref();
        self.with_key("set", key, |key| {
            // SAFETY: store, key and value live through the call, which copies them.
            unsafe { ffi::datjob_store_set(self.as_ptr(), key, value.as_ptr(), value.len()) }
        })
    }

    /// The value of a key. Waits until it is set, for at most the timeout of the connection.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, C10dError> {
        let (mut bytes, mut length) = (ptr::null_mut(), 0);
        self.with_key("get", key, |key| {
            // SAFETY: store and key live through the call; the last two arguments point to space for the results.
            unsafe { ffi::datjob_store_get(self.as_ptr(), key, &raw mut bytes, &raw mut length) }
        })?;
        // SAFETY: after success `bytes` points to `length` initialised bytes that this function owns.
        let value = unsafe { slice::from_raw_parts(bytes, length) }.to_vec();
        // SAFETY: freed once and not used again.
        unsafe { ffi::datjob_bytes_free(bytes) };
        Ok(value)
    }

    /// Adds to a counter (0 if it was never set) and returns the sum. Atomic over all processes.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, C10dError> {
        let mut sum = 0;
        self.with_key("add", key, |key| {
            // SAFETY: store and key live through the call, and the last argument points to space for the result.
            unsafe { ffi::datjob_store_add(self.as_ptr(), key, amount, &raw mut sum) }
        })?;
        Ok(sum)
    }

    /// Waits until the key is set.
    pub fn wait(&self, key: &str, timeout: Duration) -> Result<(), C10dError> {
        self.with_key("wait", key, |key| {
            // SAFETY: store and key live through the call.
            unsafe { ffi::datjob_store_wait(self.as_ptr(), key, milliseconds(timeout)) }
        })
    }

    fn with_key(
        &self,
        operation: &str,
        key: &str,
        call: impl FnOnce(*const std::ffi::c_char) -> std::ffi::c_int,
    ) -> Result<(), C10dError> {
        let _waiting = Waiting::begin("a store operation");
        let operation = || format!("store {operation} {key:?}");
        let key = c_string(key).map_err(|message| C10dError::invalid(&operation(), None, message))?;
        check(call(key.as_ptr())).map_err(|message| C10dError::from_store_message(&operation(), &message))
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::Store {
        self.handle.as_ptr()
    }
}

/// A [`Store`] over TCP: the server or a connection to it. It has no authentication: anyone who can reach its port can
/// change it.
#[derive(Debug)]
pub struct TcpStore {
    store: Store,
    address: String,
    port: u16,
}

impl TcpStore {
    /// Serves a store on one address of this machine (`0.0.0.0` or `::` for all) until the store and all its prefixes are
    /// dropped. Port 0 selects any free port. The server runs in a separate thread and does not wait for workers. This
    /// process need not be a rank. `timeout` applies to [`Store::get`] in this process.
    pub fn host(bind: IpAddr, port: u16, timeout: Duration) -> Result<Self, C10dError> {
        let operation = format!("starting the store on {}", SocketAddr::new(bind, port));
        let socket_failed =
            |error: std::io::Error| C10dError::from_message(&operation, None, &error.to_string());
        // Bind here, because libtorch's server would bind to all addresses.
        let listener = TcpListener::bind((bind, port)).map_err(socket_failed)?;
        let port = listener.local_addr().map_err(socket_failed)?.port();
        let address = match bind {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        let host = c_string(&address.to_string()).expect("an address has no NUL byte");
        // SAFETY: the descriptor is an open listening socket, whose ownership is transferred; the string lives through the call,
        // and `out` points to space for one pointer.
        let store = Store::create(&operation, |out| unsafe {
            ffi::datjob_store_host(listener.into_raw_fd(), host.as_ptr(), port, milliseconds(timeout), out)
        })?;
        Ok(Self { store, address: address.to_string(), port })
    }

    /// Connects to a store that another process hosts; retries until the timeout. `timeout` also applies to [`Store::get`].
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, C10dError> {
        let _waiting = Waiting::begin("connecting to the store");
        let operation = format!("connecting to the store at {host}:{port}");
        let address = c_string(host).map_err(|message| C10dError::invalid(&operation, None, message))?;
        // SAFETY: the string lives through the call, and `out` points to space for one pointer.
        let store = Store::create(&operation, |out| unsafe {
            ffi::datjob_store_connect(address.as_ptr(), port, milliseconds(timeout), out)
        })?;
        Ok(Self { store, address: host.to_owned(), port })
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address at which this process reaches the server.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Deref for TcpStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}
