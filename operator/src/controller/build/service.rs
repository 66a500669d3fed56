//! Headless Service for the DNS names of the pods. Pure.

use datjob_api::contract;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::controller::identity::Identity;

pub(super) fn service(identity: &Identity) -> Service {
    Service {
        metadata: identity.child(&identity.name),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            // Pods must resolve each other before they are ready.
            publish_not_ready_addresses: Some(true),
            selector: identity.selector().match_labels,
            ports: Some(vec![ServicePort {
                name: Some(contract::AGENT_PORT_NAME.into()),
                port: i32::from(contract::AGENT_PORT),
                target_port: Some(IntOrString::String(contract::AGENT_PORT_NAME.into())),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
