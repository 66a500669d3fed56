//! NetworkPolicy of the trainer pods. Pure.

use datjob_api::{contract, datjob::Egress};
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::Settings;
use crate::controller::{identity::Identity, validate::ValidJob};

pub(super) fn network_policy(valid: &ValidJob<'_>, settings: &Settings) -> Option<NetworkPolicy> {
    let policy = &valid.job.spec.network_policy;
    policy.enabled.then(|| NetworkPolicy {
        metadata: valid.identity.child(&valid.identity.name),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(valid.identity.selector()),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress(valid.identity, settings)),
            egress: Some(egress(valid)),
        }),
    })
}

/// Allows the job's pods at all ports, and the operator at the agent's port. The rendezvous uses that port too, and a
/// foreign client could end a training. A metrics scraper needs a separate policy; policies are additive. Probes of the
/// kubelet pass any policy.
fn ingress(identity: &Identity, settings: &Settings) -> Vec<NetworkPolicyIngressRule> {
    vec![
        NetworkPolicyIngressRule { from: Some(vec![job_peer(identity)]), ports: None },
        NetworkPolicyIngressRule {
            // A policy cannot name an operator outside the cluster (development).
            from: settings.operator_namespace.as_deref().map(|namespace| vec![namespace_peer(namespace)]),
            ports: Some(vec![port(contract::AGENT_PORT, "TCP")]),
        },
    ]
}

fn egress(valid: &ValidJob<'_>) -> Vec<NetworkPolicyEgressRule> {
    let mut rules = vec![
        NetworkPolicyEgressRule { to: Some(vec![job_peer(valid.identity)]), ports: None },
        // To all destinations: DNS may be a pod, a node-local cache or a host.
        NetworkPolicyEgressRule { to: None, ports: Some(vec![port(53, "UDP"), port(53, "TCP")]) },
    ];
    let added = &valid.job.spec.network_policy.egress;
    rules.extend(added.iter().map(egress_rule));
    if added.is_empty() && !valid.source_ports.is_empty() {
        rules.push(NetworkPolicyEgressRule {
            to: Some(["0.0.0.0/0", "::/0"].map(cidr_peer).into()),
            ports: Some(valid.source_ports.iter().map(|&source| port(source, "TCP")).collect()),
        });
    }
    rules
}

fn egress_rule(egress: &Egress) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        to: (!egress.to.is_empty()).then(|| egress.to.clone()),
        ports: (!egress.ports.is_empty()).then(|| egress.ports.clone()),
    }
}

fn job_peer(identity: &Identity) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(identity.selector()), ..NetworkPolicyPeer::default() }
}

fn namespace_peer(name: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into()),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn cidr_peer(cidr: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.to_owned(), except: None }),
        ..NetworkPolicyPeer::default()
    }
}

fn port(number: u16, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    }
}
