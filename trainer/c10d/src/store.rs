//! The key-value store through which processes find one another.

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
};

/// A key-value store shared by processes, or a part of one (see [`prefix`](Self::prefix)).
///
/// A store is one connection and does one operation at a time: while one thread waits for a key, all others that use
/// the connection, be it through another prefix, queue up. A thread that waits needs a connection of its own.
#[derive(Debug)]
pub struct Store {
    handle: NonNull<ffi::Store>,
}

// SAFETY: a handle is a reference, counted atomically, to a store that belongs to no thread.
unsafe impl Send for Store {}
// SAFETY: TCPStore holds a lock for each operation, PrefixStore never changes, and the bridge's functions change no
// handle.
unsafe impl Sync for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is this object's own and is not used again.
        unsafe { ffi::datjob_store_free(self.handle.as_ptr()) }
    }
}

impl Store {
    /// Calls a function of the bridge that makes a store.
    fn create(
        operation: &str,
        make: impl FnOnce(*mut *mut ffi::Store) -> std::ffi::c_int,
    ) -> Result<Self, C10dError> {
        let mut handle = ptr::null_mut();
        let made = check(make(&raw mut handle));
        made.map_err(|message| C10dError::from_store_message(operation, &message))?;
        let handle = NonNull::new(handle).expect("the bridge makes a store or fails");
        Ok(Self { handle })
    }

    /// The part of the store whose keys begin with `prefix` and a slash. It shares the connection and keeps it open.
    pub fn prefix(&self, prefix: &str) -> Result<Self, C10dError> {
        let operation = format!("store prefix {prefix:?}");
        let prefix = c_string(prefix).map_err(|message| C10dError::invalid(&operation, None, message))?;
        // SAFETY: the store and the string live through the call, and `out` is a place for one pointer.
        Self::create(&operation, |out| unsafe {
            ffi::datjob_store_prefix(self.as_ptr(), prefix.as_ptr(), out)
        })
    }

    /// Sets a key. Returns when the value is sent: it may return well after the host has died, where the next
    /// operation fails.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), C10dError> {
        let value = value.as_ref();
        self.with_key("set", key, |key| {
            // SAFETY: store, key and value live through the call, which copies them.
            unsafe { ffi::datjob_store_set(self.as_ptr(), key, value.as_ptr(), value.len()) }
        })
    }

    /// The value of a key; waits until someone sets it, for at most the timeout given when connecting.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, C10dError> {
        let (mut bytes, mut length) = (ptr::null_mut(), 0);
        self.with_key("get", key, |key| {
            // SAFETY: store and key live through the call; the last two arguments are places for its results.
            unsafe { ffi::datjob_store_get(self.as_ptr(), key, &raw mut bytes, &raw mut length) }
        })?;
        // SAFETY: after success `bytes` points to `length` initialised bytes that are this function's own.
        let value = unsafe { slice::from_raw_parts(bytes, length) }.to_vec();
        // SAFETY: given back once, and not used again.
        unsafe { ffi::datjob_bytes_free(bytes) };
        Ok(value)
    }

    /// Adds to a key that counts (0 where it was never set) and returns the sum. Atomic over all processes.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, C10dError> {
        let mut sum = 0;
        self.with_key("add", key, |key| {
            // SAFETY: store and key live through the call, and the last argument is a place for its result.
            unsafe { ffi::datjob_store_add(self.as_ptr(), key, amount, &raw mut sum) }
        })?;
        Ok(sum)
    }

    /// Waits until someone has set the key.
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
        let operation = || format!("store {operation} {key:?}");
        let key = c_string(key).map_err(|message| C10dError::invalid(&operation(), None, message))?;
        check(call(key.as_ptr())).map_err(|message| C10dError::from_store_message(&operation(), &message))
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::Store {
        self.handle.as_ptr()
    }
}

/// A [`Store`] over TCP: the server itself or a connection to it. It has no authentication: whoever reaches its port
/// can change it.
#[derive(Debug)]
pub struct TcpStore {
    store: Store,
    address: String,
    port: u16,
}

impl TcpStore {
    /// Serves a store on one address of this machine (`0.0.0.0` or `::` for all) until it and everything made from
    /// it is dropped. Port 0 takes any free port. The server runs in a thread of its own and waits for nobody; this
    /// process need not be a rank. `timeout` is that of [`Store::get`] on this end.
    pub fn host(bind: IpAddr, port: u16, timeout: Duration) -> Result<Self, C10dError> {
        let operation = format!("starting the store on {}", SocketAddr::new(bind, port));
        let socket_failed =
            |error: std::io::Error| C10dError::from_message(&operation, None, &error.to_string());
        // Bound here, because libtorch's server would bind to all addresses.
        let listener = TcpListener::bind((bind, port)).map_err(socket_failed)?;
        let port = listener.local_addr().map_err(socket_failed)?.port();
        let reach = match bind {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        let host = c_string(&reach.to_string()).expect("an address has no NUL byte");
        // SAFETY: the descriptor is an open listening socket and is given away; the string lives through the call,
        // and `out` is a place for one pointer.
        let store = Store::create(&operation, |out| unsafe {
            ffi::datjob_store_host(listener.into_raw_fd(), host.as_ptr(), port, milliseconds(timeout), out)
        })?;
        Ok(Self { store, address: reach.to_string(), port })
    }

    /// Connects to a store that another process hosts (or will soon: it tries again until the timeout). `timeout` is
    /// also that of [`Store::get`].
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self, C10dError> {
        let operation = format!("connecting to the store at {host}:{port}");
        let address = c_string(host).map_err(|message| C10dError::invalid(&operation, None, message))?;
        // SAFETY: the string lives through the call, and `out` is a place for one pointer.
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
