//! The TCP store.

use std::{thread, time::Duration};

use datjob_c10d::{C10dError, LogLevel, TcpStore, set_log_level};

use crate::world::{LOOPBACK, PATIENCE};

#[test]
fn a_key_set_on_one_connection_is_visible_on_another() {
    let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
    assert_ne!(host.port(), 0);
    let client = TcpStore::connect("127.0.0.1", host.port(), PATIENCE).unwrap();
    client.set("bytes", [0, 1, 255]).unwrap();
    client.set("empty", "").unwrap();
    assert_eq!(host.get("bytes").unwrap(), [0, 1, 255]);
    assert_eq!(host.get("empty").unwrap(), b"");
}

#[test]
fn add_sums_over_all_connections() {
    let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
    let client = TcpStore::connect("127.0.0.1", host.port(), PATIENCE).unwrap();
    assert_eq!(host.add("ranks", 1).unwrap(), 1);
    assert_eq!(client.add("ranks", 2).unwrap(), 3);
    assert_eq!(host.add("ranks", -4).unwrap(), -1);
}

#[test]
fn prefixes_separate_keys_and_keep_the_connection_open() {
    let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
    let (first, second) = (host.prefix("gen-1").unwrap(), host.prefix("gen-2").unwrap());
    drop(host);
    first.set("key", "first").unwrap();
    second.set("key", "second").unwrap();
    assert_eq!(first.get("key").unwrap(), b"first");
    assert_eq!(second.get("key").unwrap(), b"second");
}

#[test]
fn wait_returns_when_the_key_is_set() {
    let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
    let client = TcpStore::connect("127.0.0.1", host.port(), PATIENCE).unwrap();
    let waiting = thread::spawn(move || client.wait("ready", PATIENCE));
    thread::sleep(Duration::from_millis(50));
    host.set("ready", "yes").unwrap();
    waiting.join().unwrap().unwrap();
}

#[test]
fn waiting_for_an_unset_key_times_out() {
    set_log_level(LogLevel::Fatal);
    let host = TcpStore::host(LOOPBACK, 0, Duration::from_millis(200)).unwrap();
    for error in [host.wait("never", Duration::from_millis(100)).unwrap_err(), host.get("never").unwrap_err()]
    {
        assert!(matches!(error, C10dError::Timeout(_)), "{error}");
        assert!(error.to_string().contains("\"never\""), "{error}");
        assert!(error.is_communication());
    }
    // The connection still works.
    host.set("never", "now").unwrap();
    assert_eq!(host.get("never").unwrap(), b"now");
}

#[test]
fn a_zero_timeout_does_not_wait_forever() {
    set_log_level(LogLevel::Fatal);
    let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
    assert!(matches!(host.wait("never", Duration::ZERO), Err(C10dError::Timeout(_))));
}

#[test]
fn connecting_without_a_server_is_store_lost() {
    set_log_level(LogLevel::Fatal);
    // The port is free again when this store is dropped.
    let port = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap().port();
    let error = TcpStore::connect("127.0.0.1", port, Duration::from_millis(300)).unwrap_err();
    assert!(matches!(error, C10dError::StoreLost(_)), "{error}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[test]
fn rejects_a_port_in_use() {
    let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
    let error = TcpStore::host(LOOPBACK, host.port(), PATIENCE).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("in use"), "{error}");
}

#[test]
fn a_store_on_one_address_does_not_listen_on_others() {
    set_log_level(LogLevel::Fatal);
    let host = TcpStore::host("127.0.0.2".parse().unwrap(), 0, PATIENCE).unwrap();
    assert_eq!(host.address(), "127.0.0.2");
    TcpStore::connect("127.0.0.2", host.port(), PATIENCE).unwrap();
    let elsewhere = TcpStore::connect("127.0.0.1", host.port(), Duration::from_millis(300));
    assert!(matches!(elsewhere, Err(C10dError::StoreLost(_))));
}

#[test]
fn a_store_on_all_addresses_accepts_any_address() {
    let host = TcpStore::host("0.0.0.0".parse().unwrap(), 0, PATIENCE).unwrap();
    TcpStore::connect("127.0.0.2", host.port(), PATIENCE).unwrap().set("key", "value").unwrap();
    assert_eq!(host.get("key").unwrap(), b"value");
}

#[test]
fn rejects_a_nul_byte() {
    let host = TcpStore::host(LOOPBACK, 0, PATIENCE).unwrap();
    assert!(matches!(host.set("a\0b", "value"), Err(C10dError::InvalidArgument(_))));
}
