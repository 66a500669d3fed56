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

/// What the server does to a request instead of answering it as it should.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// 503.
    Unavailable,
    /// The server falls silent in the middle of the body.
    BreakOff,
}

/// An S3 server with one bucket, `bucket`, which is a folder.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) folder: tempfile::TempDir,
    /// The requests: method, path and range.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// What is done to the next requests for objects, last first.
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
        let (asked, faults) = (Arc::default(), Arc::default());
        let (log, todo) = (Arc::clone(&asked), Arc::clone(&faults));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (s3, log, todo) = (s3.clone(), Arc::clone(&log), Arc::clone(&todo));
                    let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                        answer(s3.clone(), request, &log, &todo)
                    });
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), answer),
                    );
                }
            });
        });
        Self { url, folder, asked, faults }
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

    /// The requests for objects since this was asked last, sorted.
    pub(crate) fn objects_asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.retain(|line| !line.contains("list-type"));
        asked.sort();
        asked
    }
}

fn answer(
    s3: s3s::service::S3Service,
    request: Request<Incoming>,
    log: &Mutex<Vec<String>>,
    faults: &Mutex<Vec<Fault>>,
) -> impl Future<Output = Result<HttpResponse, s3s::HttpError>> + use<> {
    let range = request.headers().get(header::RANGE).map_or("", |range| range.to_str().unwrap()).to_owned();
    log.lock().unwrap().push(format!("{} {range}", request.uri()).trim().to_owned());
    let is_list = request.uri().query().is_some_and(|query| query.contains("list-type"));
    let fault = if is_list { None } else { faults.lock().unwrap().pop() };
    async move {
        let mut answer = s3.call(request.map(Body::from)).await?;
        match fault {
            Some(Fault::Unavailable) => *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
            Some(Fault::BreakOff) => {
                let bytes = answer.body_mut().store_all_limited(1 << 20).await.unwrap();
                // The length in the header stays.
                *answer.body_mut() = Body::from(bytes.slice(..bytes.len() / 2));
            }
            None => {}
        }
        Ok(answer)
    }
}
