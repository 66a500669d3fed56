//! Faults of a running job. Each checks that it struck.

use std::time::{Duration, Instant};

use datjob_trainer::rendezvous::lease::LOST_AFTER;
use rustix::process::Signal;

use crate::{
    job::Job,
    processes::is_worker,
    signals::{is_stopped, signal},
};

/// Time in which all threads of a process stop.
const STOP_TIME: Duration = Duration::from_millis(200);

/// A fault of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL of a worker.
    KillWorker,
    /// SIGKILL of an agent: the container restarts.
    KillAgent,
    /// SIGSTOP of a worker, then SIGCONT.
    StopWorker,
    /// SIGSTOP of an agent, then SIGCONT.
    StopAgent,
    /// SIGTERM of an agent; another pod replaces its pod.
    TerminatePod,
    /// The pod is killed, and another one replaces it.
    DeletePod,
    /// The node of the pod is lost: nothing is received from it any more. Later another pod replaces it.
    LoseNode,
    /// The link of the pod is cut, then healed.
    CutLink,
    /// The rate of the link is limited for a while.
    LimitRate,
    /// The link has a delay for a while.
    DelayPackets,
    /// The fault of storage with which the job started.
    Storage,
}

impl Fault {
    /// The faults that any job can have.
    pub(crate) const ALL: [Self; 10] = [
        Self::KillWorker,
        Self::KillAgent,
        Self::StopWorker,
        Self::StopAgent,
        Self::TerminatePod,
        Self::DeletePod,
        Self::LoseNode,
        Self::CutLink,
        Self::LimitRate,
        Self::DelayPackets,
    ];

    /// Strikes a pod, for `time` if the fault lasts. Returns whether it struck: it does not if the job succeeds meanwhile, or if
    /// `tc` or the kernel cannot produce the fault, which is printed.
    pub(crate) fn strike(self, job: &mut Job, pod: u32, time: Duration) -> bool {
        match self {
            Self::KillWorker => job.worker(pod).is_some_and(|worker| kill(job, worker)),
            Self::KillAgent => {
                let agent = job.pod(pod).agent();
                job.pod_mut(pod).restart_container();
                agent != job.pod(pod).agent()
            }
            Self::StopWorker => job.worker(pod).is_some_and(|worker| stop(job, worker, time)),
            Self::StopAgent => {
                let agent = job.pod(pod).agent();
                stop(job, agent, time)
            }
            Self::TerminatePod => {
                let struck = terminate(job, pod);
                replace(job, pod) && struck
            }
            Self::DeletePod => replace(job, pod),
            Self::LoseNode => {
                let struck = cut(job, pod);
                job.delete(pod);
                job.observe_for(time);
                job.create(pod);
                struck
            }
            Self::CutLink => cut_link(job, pod, time),
            Self::LimitRate => slow_down(job, pod, "tbf rate 20mbit burst 32kb latency 200ms", time),
            Self::DelayPackets => slow_down(job, pod, "netem delay 20ms 5ms", time),
            Self::Storage => {
                let before = job.storage_fault_strikes();
                job.begin_storage_fault();
                job.until("call that meets the fault of storage", |job| {
                    job.observe();
                    (job.storage_fault_strikes() > before || job.has_succeeded()).then_some(())
                });
                job.observe_for(time);
                job.end_storage_fault();
                job.storage_fault_strikes() > before
            }
        }
    }

    /// Whether it depends on `tc` and the kernel.
    pub(crate) fn needs_traffic_control(self) -> bool {
        matches!(self, Self::LimitRate | Self::DelayPackets)
    }

    /// How long a job may stand still after the begin of the fault. `startup` is the time in which pods start and join a world.
    pub(crate) fn deadline(self, time: Duration, startup: Duration) -> Duration {
        let outage = match self {
            Self::KillWorker | Self::KillAgent | Self::TerminatePod | Self::DeletePod => Duration::ZERO,
            Self::StopWorker
            | Self::StopAgent
            | Self::LoseNode
            | Self::CutLink
            | Self::LimitRate
            | Self::DelayPackets => time,
            // The delay between two retries may be as long as the fault was.
            Self::Storage => 2 * time,
        };
        outage + LOST_AFTER + startup
    }
}

/// Kills a process with SIGKILL. Returns whether it ran until then.
pub(crate) fn kill(job: &mut Job, worker: u32) -> bool {
    let struck = signal(worker, Signal::KILL);
    job.until("end of a killed worker", |_| (!is_worker(worker)).then_some(()));
    struck
}

/// Sends SIGTERM to the agent of a pod. Returns whether it ended as it should.
pub(crate) fn terminate(job: &mut Job, pod: u32) -> bool {
    // Process 1 of a container receives the signal once it has a handler, which it has before it answers.
    wait_for_answer(job, pod);
    signal(job.pod(pod).agent(), Signal::TERM) && job.exit_status(pod).success()
}

/// Deletes a pod and creates another one in its place. Returns whether it has another UID.
pub(crate) fn replace(job: &mut Job, pod: u32) -> bool {
    let uid = job.pod(pod).uid().to_owned();
    job.delete(pod);
    job.create(pod);
    job.pod(pod).uid() != uid
}

/// Stops a process for some time. Returns whether it was stopped.
fn stop(job: &mut Job, pid: u32, time: Duration) -> bool {
    if !signal(pid, Signal::STOP) {
        return false;
    }
    job.observe_for(STOP_TIME);
    let struck = is_stopped(pid);
    job.observe_for(time);
    signal(pid, Signal::CONT);
    struck
}

fn wait_for_answer(job: &mut Job, pod: u32) {
    job.until("answer of an agent", |job| job.report_of(pod));
}

/// Cuts the link of a pod. Returns whether the pod, which answered before, does not answer.
fn cut(job: &mut Job, pod: u32) -> bool {
    wait_for_answer(job, pod);
    job.pod(pod).link().cut();
    job.report_of(pod).is_none()
}

/// Cuts the link of a pod for some time. Returns whether the pod could not be reached.
pub(crate) fn cut_link(job: &mut Job, pod: u32, time: Duration) -> bool {
    let started = Instant::now();
    let struck = cut(job, pod);
    job.observe_for(time.saturating_sub(started.elapsed()));
    job.pod(pod).link().heal();
    struck
}

/// Slows down the link of a pod for some time, if `tc` and the kernel can.
fn slow_down(job: &mut Job, pod: u32, discipline: &str, time: Duration) -> bool {
    if let Err(error) = job.pod(pod).link().slow_down(discipline) {
        println!("SKIPPED: tc cannot add the queueing discipline `{discipline}`: {error}");
        return false;
    }
    job.observe_for(time);
    job.pod(pod).link().speed_up();
    true
}
