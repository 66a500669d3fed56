//! Leader election with a [`lease`]: one operator reconciles, the others are standbys.
//!
//! [`Election`] runs on a separate thread, with a separate client, so that no amount of work delays a renewal.

use std::{io, thread};

use kube::{Client, Config};
use tokio::sync::{oneshot, watch};

use self::lease::{Candidate, LeaseLost};

pub mod lease;

/// State of this operator in the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Another operator is the leader.
    Standby,
    /// This operator is the leader.
    Leader,
    /// This operator was the leader and must stop at once.
    Lost(LeaseLost),
    /// This operator has released the lease.
    Released,
}

/// Why the election cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No thread.
    #[error("cannot start the thread for leader election: {0}")]
    Thread(#[from] io::Error),
    /// No client.
    #[error("cannot create a Kubernetes client for leader election: {0}")]
    Client(#[from] kube::Error),
}

/// Takes part in the election until it is released or dropped.
pub struct Election {
    role: watch::Receiver<Role>,
    release: oneshot::Sender<()>,
}

impl Election {
    /// Takes part as `identity` in the election of the Lease `namespace`/`name`.
    pub fn start(config: Config, namespace: &str, name: &str, identity: &str) -> Result<Self, StartError> {
        let (sender, role) = watch::channel(Role::Standby);
        let (release, released) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = {
            let _context = runtime.enter();
            Client::try_from(config)?
        };
        let candidate = Candidate::new(client, namespace, name, identity);
        thread::Builder::new()
            .name("leader-election".to_owned())
            .spawn(move || runtime.block_on(take_part(candidate, &sender, released)))?;
        Ok(Self { role, release })
    }

    /// Waits until this operator is the leader.
    pub async fn acquired(&self) {
        self.wait_for(|role| *role == Role::Leader).await;
    }

    /// Waits until the lease is lost.
    pub async fn lost(&self) -> LeaseLost {
        match self.wait_for(|role| matches!(role, Role::Lost(_))).await {
            Role::Lost(lost) => lost,
            _ => std::future::pending().await,
        }
    }

    /// Releases the lease, so that a standby does not wait for its expiry.
    pub async fn release(self) {
        let Self { mut role, release } = self;
        if release.send(()).is_ok() {
            let _ = role.wait_for(|role| matches!(role, Role::Released | Role::Lost(_))).await;
        }
    }

    async fn wait_for(&self, condition: impl FnMut(&Role) -> bool) -> Role {
        match self.role.clone().wait_for(condition).await {
            Ok(role) => role.clone(),
            // The thread has ended without this role.
            Err(_) => std::future::pending().await,
        }
    }
}

async fn take_part(candidate: Candidate, role: &watch::Sender<Role>, mut released: oneshot::Receiver<()>) {
    let mut lease = tokio::select! {
        lease = candidate.acquire() => lease,
        _ = &mut released => {
            role.send_replace(Role::Released);
            return;
        }
    };
    role.send_replace(Role::Leader);
    let lost = tokio::select! {
        lost = lease.renew_until_lost() => Some(lost),
        _ = &mut released => None,
    };
    let last = if let Some(lost) = lost {
        Role::Lost(lost)
    } else {
        lease.release().await;
        Role::Released
    };
    role.send_replace(last);
}
