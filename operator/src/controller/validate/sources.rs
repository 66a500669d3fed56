//! Sources of the data set and of files, and the ports from which pods fetch them. Pure.

use std::collections::BTreeSet;

use datjob_api::{
    contract,
    datjob::{DatJob, PodOptions},
    training::{FileSource, ObjectStoreSource, Source, Training},
};

use super::{InvalidSpec, refuse};

/// Port of S3 on AWS.
const HTTPS: u16 = 443;

/// Checks the URLs and the credentials of all sources. Messages omit URLs, which may contain secrets.
pub(super) fn check(training: &Training, pod: &PodOptions) -> Result<(), InvalidSpec> {
    match &training.data.source {
        Source::Http(http) => check_url("data.source", &http.url)?,
        Source::ObjectStore(store) => check_object_store(store, pod)?,
        _ => {}
    }
    for (file, source) in training.files() {
        if let FileSource::Http(http) = source {
            check_url(file.field(), &http.url)?;
        }
    }
    Ok(())
}

/// The ports of all sources over the network.
pub(super) fn ports(job: &DatJob) -> BTreeSet<u16> {
    let training = &job.spec.training;
    let files = training.files().into_iter().filter_map(|(_, source)| match source {
        FileSource::Http(http) => port(&http.url).ok(),
        FileSource::Volume(_) => None,
    });
    let data = match &training.data.source {
        Source::Http(http) => port(&http.url).ok(),
        Source::ObjectStore(ObjectStoreSource { endpoint: Some(endpoint), .. }) => port(endpoint).ok(),
        Source::ObjectStore(_) => Some(HTTPS),
        Source::Volume(_) | Source::Image(_) => None,
    };
    files.chain(data).collect()
}

fn check_url(field: &str, url: &str) -> Result<(), InvalidSpec> {
    match port(url) {
        Ok(_) => Ok(()),
        Err(reason) => refuse(
            format!("spec.training.{field}.http.url"),
            format!("invalid URL ({reason}); expected for example https://host/data.tar.gz"),
        ),
    }
}

fn check_object_store(store: &ObjectStoreSource, pod: &PodOptions) -> Result<(), InvalidSpec> {
    if let Some(Err(reason)) = store.endpoint.as_deref().map(port) {
        return refuse(
            "spec.training.data.source.objectStore.endpoint",
            format!("invalid URL ({reason}); expected for example https://minio.example.com:9000"),
        );
    }
    let is_from_secret = |name: &str| store.secret_name.is_some() && contract::ENV_AWS.contains(&name);
    match pod.env.iter().find(|variable| is_from_secret(&variable.name)) {
        Some(variable) => refuse(
            "spec.pod.env",
            format!(
                "{} comes from the Secret in spec.training.data.source.objectStore.secretName; remove one of the two",
                variable.name
            ),
        ),
        None => Ok(()),
    }
}

/// The port of a URL, or why the URL is invalid.
fn port(url: &str) -> Result<u16, String> {
    let url = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
    url.port_or_known_default().filter(|_| url.has_host()).ok_or_else(|| "missing host or port".to_owned())
}
