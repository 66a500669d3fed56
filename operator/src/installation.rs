//! An installation of the operator, and which installation manages a job. Pure.
//!
//! `spec.managedBy` assigns a job to an installation permanently. Without it, the first installation that finds the job
//! records itself in `status.managedBy`, and all others respect that.

use std::fmt;

use datjob_api::datjob::DatJob;

/// The operators that share a Lease. Only one of them is active.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Installation {
    name: String,
    id: String,
}

impl Installation {
    /// The installation with the Lease `namespace`/`name`. Without a namespace, as in development, its name identifies it.
    pub fn new(namespace: Option<&str>, name: &str) -> Self {
        let id = namespace.map_or(name.to_owned(), |namespace| format!("{namespace}/{name}"));
        Self { name: name.to_owned(), id }
    }

    /// The name: that of its Lease, and the field manager of the objects that it writes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of `managedBy` that names this installation: NAMESPACE/NAME.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Which installation manages a job.
    pub fn management(&self, job: &DatJob) -> Management {
        let recorded = job.status.as_ref().map_or("", |status| status.managed_by.as_str());
        self.management_by(job.spec.managed_by.as_deref(), recorded)
    }

    /// Which installation manages a job with these values of `spec.managedBy` and `status.managedBy`.
    pub fn management_by(&self, assigned: Option<&str>, recorded: &str) -> Management {
        match assigned {
            Some(assigned) if assigned != self.id => return Management::Assigned(assigned.to_owned()),
            // Whatever another installation or a person recorded: the spec is immutable and decides.
            Some(_) if recorded != self.id => return Management::Unclaimed,
            _ => {}
        }
        match recorded {
            "" => Management::Unclaimed,
            recorded if recorded == self.id => Management::Own,
            recorded => Management::Claimed(recorded.to_owned()),
        }
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.id)
    }
}

/// Which installation manages a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Management {
    /// This one.
    Own,
    /// This one may record itself in the status.
    Unclaimed,
    /// Another installation or controller, named in `spec.managedBy`.
    Assigned(String),
    /// Another installation, which recorded itself in `status.managedBy`.
    Claimed(String),
}

impl Management {
    /// Whether this installation must leave the job alone.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Assigned(_) | Self::Claimed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::minimal;

    const OTHER: &str = "team/other-operator";

    fn installation() -> Installation {
        Installation::new(Some("datjob-system"), "datjob-operator")
    }

    #[test]
    fn the_first_installation_that_records_itself_manages_a_job() {
        let own = installation();
        assert_eq!(own.management_by(None, ""), Management::Unclaimed);
        assert_eq!(own.management_by(None, own.id()), Management::Own);
        assert_eq!(own.management_by(None, OTHER), Management::Claimed(OTHER.into()));
        // The same name in another namespace is another installation.
        let twin = Installation::new(Some("team"), "datjob-operator");
        assert!(own.management_by(None, twin.id()).is_foreign());
    }

    #[test]
    fn the_spec_decides_over_the_status() {
        let own = installation();
        assert_eq!(own.management_by(Some(own.id()), ""), Management::Unclaimed);
        assert_eq!(own.management_by(Some(own.id()), own.id()), Management::Own);
        assert_eq!(own.management_by(Some(own.id()), OTHER), Management::Unclaimed);
        for recorded in ["", own.id(), OTHER] {
            let found = own.management_by(Some("kueue.x-k8s.io/multikueue"), recorded);
            assert_eq!(found, Management::Assigned("kueue.x-k8s.io/multikueue".into()));
        }
    }

    #[test]
    fn reads_both_fields_of_a_job() {
        let mut job = minimal();
        assert_eq!(installation().management(&job), Management::Unclaimed);
        job.status = serde_json::from_value(serde_json::json!({"managedBy": OTHER})).unwrap();
        assert_eq!(installation().management(&job), Management::Claimed(OTHER.into()));
        job.spec.managed_by = Some("datjob-system/datjob-operator".into());
        assert_eq!(installation().management(&job), Management::Unclaimed);
    }

    #[test]
    fn an_installation_without_a_namespace_has_its_name_as_its_id() {
        assert_eq!(Installation::new(None, "dev").to_string(), "dev");
    }
}
