//! Deadlines compare only times of the operator's clock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

/// Changes the time at which a pod's trainer started, by the kubelet's clock.
fn started_at(mut pod: Pod, time: &str) -> Pod {
    let running = pod.status.container_statuses[0].state.running.as_mut().unwrap();
    running.started_at = Some(Time(time.parse().unwrap()));
    pod
}

#[test]
fn the_active_deadline_counts_from_the_first_running_pod_by_the_operators_clock() {
    for kubelet in ["1969-01-01T00:00:00Z", "2031-01-01T00:00:00Z"] {
        let mut sim = JobSimulation::new();
        sim.job.spec.lifecycle.active_deadline_seconds = Some(60);
        sim.pods = vec![started_at(running("fashion-0"), kubelet), started_at(running("fashion-1"), kubelet)];
        sim.start(1);
        sim.second += 1_000;
        // No pod has run yet.
        assert_eq!(sim.observe(vec![unschedulable("fashion-0")], ReportState::NoPod).state, "Pending");
        assert_eq!(sim.report(|_| {}).state, "Running", "{kubelet}");
        assert_eq!(sim.status().start_time.as_ref().unwrap().0.as_second(), sim.second);
        sim.second += 54;
        assert_eq!(sim.report(|_| {}).state, "Running", "{kubelet}");
        assert_eq!(sim.report(|_| {}).state, "Failed", "{kubelet}");
        assert_eq!(sim.condition(FAILED).1, "DeadlineExceeded");
    }
}

#[test]
fn times_of_a_leader_whose_clock_was_ahead_are_replaced() {
    let mut sim = JobSimulation::training();
    let future = Some(Time(Timestamp::from_second(4_000_000_000).unwrap()));
    let status = sim.job.status.as_mut().unwrap();
    status.start_time.clone_from(&future);
    status.world.as_mut().unwrap().since = future.clone().unwrap();
    let status = sim.report(|_| {}).clone();
    let now = Some(Time(Timestamp::from_second(sim.second).unwrap()));
    assert_eq!((&status.start_time, &status.world.unwrap().since), (&now, now.as_ref().unwrap()));

    // The startup deadline passes after its limit, not after years.
    let mut sim = JobSimulation::new();
    sim.start(1);
    sim.job.status.as_mut().unwrap().waiting_since = future;
    sim.observe(vec![], ReportState::NoPod);
    sim.second += 1_795;
    assert_eq!(sim.observe(vec![], ReportState::NoPod).attempt, 1);
    assert_eq!(sim.observe(vec![], ReportState::NoPod).attempt, 2);
}

#[test]
fn times_of_a_finished_job_stay() {
    let mut sim = JobSimulation::new();
    sim.apply(&Applied::Rejected(InvalidSpec::new("spec.pod", "invalid")));
    sim.job.status.as_mut().unwrap().start_time = Some(Time(Timestamp::from_second(4_000_000_000).unwrap()));
    let before = sim.status().clone();
    assert_eq!(*sim.apply(&Applied::Finished), before);
}
