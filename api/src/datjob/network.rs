use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who the trainer pods may talk to. Enabled, they reach each other, DNS (port 53), and what `egress` adds; they are
/// reached by each other and, at the agent's port, from the operator's namespace. Policies add up: for a scraper of
/// the pods' metrics make another NetworkPolicy that selects the label `app.kubernetes.io/name: datjob-trainer`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Whether a NetworkPolicy is made; false leaves it to others.
    pub enabled: bool,
    /// What data and checkpoints need beyond that, for example an address range of a file server. A policy knows no
    /// host names. With `data.source.http` and nothing here, all addresses are allowed at the URL's port.
    #[schemars(length(max = 32))]
    pub egress: Vec<Egress>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { enabled: true, egress: Vec::new() }
    }
}

/// An egress rule, as in a NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Egress {
    /// To whom; anyone where empty.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub to: Vec<NetworkPolicyPeer>,
    /// At which ports; any where empty.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub ports: Vec<NetworkPolicyPort>,
}
