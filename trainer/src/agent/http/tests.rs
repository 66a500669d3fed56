use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use super::testing::serve;
use crate::rendezvous::{
    Refused,
    client::{Client, ClientError},
    host::testing::{heartbeat, host_on_stalled_volume},
};

fn client(port: u16) -> Client {
    Client::remote(&Ipv4Addr::LOCALHOST.to_string(), port).unwrap()
}

async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// On one thread, as in a pod with one core.
#[tokio::test]
async fn health_report_and_heartbeats_are_answered_while_the_volume_stalls() {
    let (host, volume) = host_on_stalled_volume(1);
    let port = serve(host).await;
    let client = client(port);
    let beat = heartbeat(0, "a");
    let answers =
        async { tokio::join!(client.exchange(&beat), get(port, "/healthz"), get(port, "/v1/report")) };
    let (reply, health, report) = time::timeout(Duration::from_secs(10), answers).await.unwrap();
    assert_eq!(reply.unwrap().world, None, "the generation is not durable yet");
    assert!(health.starts_with("HTTP/1.1 200 ") && health.ends_with("ok\n"), "{health}");
    assert!(report.contains("\"generation\":0"), "{report}");
    volume.send(Ok(())).unwrap();
    let world = async {
        loop {
            if let Some(world) = client.exchange(&beat).await.unwrap().world {
                return world;
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(time::timeout(Duration::from_secs(30), world).await.unwrap().generation, 1);
}

#[tokio::test]
async fn a_superseded_pod_receives_the_reason() {
    let (host, _volume) = host_on_stalled_volume(2);
    let client = client(serve(host).await);
    for pod_uid in ["old", "new"] {
        client.exchange(&heartbeat(1, pod_uid)).await.unwrap();
    }
    let error = client.exchange(&heartbeat(1, "old")).await.unwrap_err();
    let expected = Refused::Superseded { pod: 1, pod_uid: "old".into(), successor: "new".into() };
    assert!(matches!(&error, ClientError::Refused(refused) if *refused == expected), "{error}");
}
