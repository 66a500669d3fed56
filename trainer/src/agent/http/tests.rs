use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use super::testing::serve;
use crate::rendezvous::{
    Heartbeat, Refused,
    client::{Client, ClientError},
    host::{
        Options,
        testing::{heartbeat, host_on_stalled_volume, host_with, options},
    },
    token::{Token, Unauthenticated},
};

fn client(port: u16) -> Client {
    client_with(port, None)
}

fn client_with(port: u16, token: Option<Token>) -> Client {
    Client::remote(&Ipv4Addr::LOCALHOST.to_string(), port, token).unwrap()
}

/// Posts a body to the rendezvous, with this HMAC.
async fn post(port: u16, body: &[u8], mac: Option<&str>) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let mac = mac.map_or(String::new(), |mac| format!("X-Datjob-Mac: {mac}\r\n"));
    let head = format!(
        "POST /v1/rendezvous HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{mac}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
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

fn refused(result: Result<impl std::fmt::Debug, ClientError>) -> Refused {
    match result {
        Err(ClientError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_pods_with_the_token_of_the_attempt_are_accepted() {
    let token = Token::random().unwrap();
    let host = host_with(&Options { token: Some(token.clone()), ..options(2) });
    let port = serve(Arc::clone(&host)).await;
    let beat = |sequence| Heartbeat { sequence, ..heartbeat(1, "a") };
    let without = client(port).exchange(&beat(1)).await;
    assert_eq!(refused(without), Refused::Unauthenticated(Unauthenticated::Missing));
    let other = client_with(port, Some(Token::random().unwrap())).exchange(&beat(1)).await;
    assert_eq!(refused(other), Refused::Unauthenticated(Unauthenticated::Mismatch));
    assert_eq!(host.snapshot().joined, 0);
    let member = client_with(port, Some(token));
    member.exchange(&beat(1)).await.unwrap();
    assert_eq!(host.snapshot().joined, 1);
    let replayed = Refused::Replayed { pod: 1, sequence: 1, newest: 1 };
    assert_eq!(refused(member.exchange(&beat(1)).await), replayed);
    member.exchange(&beat(2)).await.unwrap();
}

#[tokio::test]
async fn a_request_is_authenticated_before_it_is_parsed() {
    let token = Token::random().unwrap();
    let port = serve(host_with(&Options { token: Some(token.clone()), ..options(2) })).await;
    let answer = post(port, b"{", None).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("Missing"), "{answer}");
    let body = serde_json::to_vec(&heartbeat(1, "a")).unwrap();
    let forged = post(port, &body, Some(&token.sign(b"another body"))).await;
    assert!(forged.starts_with("HTTP/1.1 401 ") && forged.contains("Mismatch"), "{forged}");
    let answer = post(port, b"{", Some(&token.sign(b"{"))).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("invalid heartbeat: "), "{answer}");
}

#[tokio::test]
async fn an_attempt_of_an_older_operator_has_no_token() {
    let port = serve(host_with(&options(2))).await;
    client(port).exchange(&heartbeat(1, "a")).await.unwrap();
    // A pod of the same attempt cannot have one, but nothing depends on it.
    client_with(port, Some(Token::random().unwrap())).exchange(&heartbeat(1, "a")).await.unwrap();
}
