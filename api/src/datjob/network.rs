//! `spec.networkPolicy`: network access of the trainer pods.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Network access of the trainer pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Whether to create a NetworkPolicy for the trainer pods. Defaults to true.
    pub enabled: bool,
    /// Additional egress rules, at most 32, for example for the address range of a file server. If empty, the policy
    /// allows all addresses at the ports of the HTTP and object store sources. A NetworkPolicy cannot match host names.
    #[schemars(length(max = 32))]
    pub egress: Vec<Egress>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true, egress: Vec::new() }
    }
}

/// Egress rule, as in a NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// Destinations, at most 64. Defaults to all destinations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub to: Vec<NetworkPolicyPeer>,
    /// Destination ports, at most 64. Defaults to all ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<NetworkPolicyPort>,
}
