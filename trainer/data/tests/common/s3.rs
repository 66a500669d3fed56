//! An S3 server, for tests.

use std::{
    fs,
    sync::{Arc, Mutex},
    thread,
};

use datjob_api::training::ObjectStoreSource;
use hyper::{Request, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use s3s::{Body, HttpResponse, auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;

/// A fault that the server injects into a response.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// Status 503.
    Unavailable,
    /// The body stops after half of its bytes.
    Interrupt,
}

/// An S3 server with one bucket named `bucket`, backed by a folder.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) folder: tempfile::TempDir,
    /// The requests: URI and range.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    /// The faults of the next object requests; the last one is used first.
    pub(crate) faults: Arc<Mutex<Vec<Fault>>>,
}

impl Server {
    pub(crate) fn new(auth: Option<SimpleAuth>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bucket")).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        if let Some(auth) = auth {
            builder.set_auth(auth);
        }
        let s3 = builder.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, faults) = (Arc::default(), Arc::default());
        let server = Self { url, folder, requests: Arc::clone(&requests), faults: Arc::clone(&faults) };
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (s3, requests, faults) = (s3.clone(), Arc::clone(&requests), Arc::clone(&faults));
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        respond(s3.clone(), request, &requests, &faults)
                    });
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        });
        server
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.path().join("bucket").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn source(&self, prefix: &str) -> ObjectStoreSource {
        ObjectStoreSource {
            url: format!("s3://bucket{prefix}"),
            endpoint: Some(self.url.clone()),
            region: None,
            secret_name: None,
        }
    }

    /// Takes the object requests since the last call, sorted.
    pub(crate) fn take_object_requests(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut *self.requests.lock().unwrap());
        requests.retain(|line| !line.contains("list-type"));
        requests.sort();
        requests
    }
}

fn respond(
    s3: s3s::service::S3Service,
    request: Request<Incoming>,
    requests: &Mutex<Vec<String>>,
    faults: &Mutex<Vec<Fault>>,
) -> impl Future<Output = Result<HttpResponse, s3s::HttpError>> + use<> {
    let range = request.headers().get(header::RANGE).map_or("", |range| range.to_str().unwrap()).to_owned();
    requests.lock().unwrap().push(format!("{} {range}", request.uri()).trim().to_owned());
    let is_list = request.uri().query().is_some_and(|query| query.contains("list-type"));
    let fault = if is_list { None } else { faults.lock().unwrap().pop() };
    async move {
        let mut response = s3.call(request.map(Body::from)).await?;
        match fault {
            Some(Fault::Unavailable) => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
            Some(Fault::Interrupt) => {
                let bytes = response.body_mut().store_all_limited(1 << 20).await.unwrap();
                // The content-length header keeps the full length.
                *response.body_mut() = Body::from(bytes.slice(..bytes.len() / 2));
            }
            None => {}
        }
        Ok(response)
    }
}
