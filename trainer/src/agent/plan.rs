//! Decides what an agent does after the reply to a heartbeat. Pure.

use crate::rendezvous::{Reply, State, Verdict, World};

/// What an agent does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Go on.
    Nothing,
    /// End the workers.
    Stop,
    /// End the workers, if there are any, and start them in this world.
    Start(World),
    /// The job has ended.
    End(Verdict),
}

/// Decides from the state of the own workers and the rendezvous' reply; without a reply all goes on as it is, since
/// the workers' own collectives notice the loss of a peer.
pub fn plan(state: State, reply: Option<Reply>) -> Action {
    let Some(Reply { world, verdict }) = reply else { return Action::Nothing };
    if let Some(verdict) = verdict {
        return Action::End(verdict);
    }
    match (state, world) {
        (State::Running(own) | State::Done(own), Some(world)) if own == world.generation => Action::Nothing,
        (State::Idle { ended: Some(ended) }, Some(world)) if ended >= world.generation => Action::Nothing,
        (_, Some(world)) => Action::Start(world),
        (State::Running(_), None) => Action::Stop,
        (State::Preparing | State::Idle { .. } | State::Done(_), None) => Action::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(generation: u32) -> World {
        World { generation, store_port: 1 }
    }

    fn with_world(world: Option<World>) -> Reply {
        Reply { world, verdict: None }
    }

    #[test]
    fn workers_follow_the_world() {
        use Action::{Nothing, Start, Stop};
        let idle = |ended| State::Idle { ended };
        for (state, reply, action) in [
            (idle(None), Some(with_world(None)), Nothing),
            (idle(None), Some(with_world(Some(world(1)))), Start(world(1))),
            (State::Running(1), Some(with_world(Some(world(1)))), Nothing),
            (State::Done(1), Some(with_world(Some(world(1)))), Nothing),
            (State::Running(1), Some(with_world(None)), Stop),
            (State::Running(1), Some(with_world(Some(world(2)))), Start(world(2))),
            (State::Done(1), Some(with_world(Some(world(2)))), Start(world(2))),
            (idle(Some(1)), Some(with_world(Some(world(1)))), Nothing),
            (idle(Some(1)), Some(with_world(Some(world(2)))), Start(world(2))),
            (State::Running(1), None, Nothing),
        ] {
            assert_eq!(plan(state, reply.clone()), action, "{state:?} receives {reply:?}");
        }
    }

    #[test]
    fn a_verdict_ends_everything() {
        let reply = Some(Reply { world: Some(world(1)), verdict: Some(Verdict::Succeeded) });
        assert_eq!(plan(State::Running(1), reply), Action::End(Verdict::Succeeded));
    }
}
