//! Renders the figures of a run as Markdown. Pure.

use crate::{
    audit::Calls,
    figures::{Environment, Figures, Interval, Round, Run},
    table::{Table, duration, integer, number},
};

mod creation;
mod operator;
mod reporting;

/// All tables of a run.
pub fn render(run: &Run) -> String {
    let mut sections = vec![environment(&run.environment)];
    sections.extend(creation::bare_client(&run.rounds));
    sections.extend(creation::creation(&run.rounds));
    sections.extend(creation::cost(&run.rounds));
    let operator_rounds = operator::operator_rounds(&run.rounds);
    if !operator_rounds.is_empty() {
        sections.push(operator::operator_calls(&operator_rounds));
        sections.push(operator::operator_table(&operator_rounds));
    }
    sections.extend(reporting::reporting(&run.rounds));
    sections.extend(reporting::foreign_pods(&run.rounds));
    sections.extend(failures(&run.rounds));
    sections.push(durations(&run.rounds));
    sections.join("\n")
}

fn environment(environment: &Environment) -> String {
    format!(
        "{}, {} cores, {} GiB memory; Kubernetes {} on one node, on the same machine; DatJob {} ({}); {}; `{}`.\n",
        environment.processor,
        environment.cores,
        environment.memory_bytes >> 30,
        environment.kubernetes,
        environment.operator,
        environment.commit,
        environment.date,
        environment.command,
    )
}

fn failures(rounds: &[Round]) -> Option<String> {
    let mut table = Table::new(["round", "jobs", "failure"]);
    for round in rounds {
        if let Figures::Failed(error) = &round.figures {
            table.row([
                round.subject.clone(),
                integer(round.objects as u64),
                error.replace('\n', " ").replace('|', "\\|"),
            ]);
        }
    }
    section("Failed rounds", "", &table)
}

fn durations(rounds: &[Round]) -> String {
    let rounds_seconds: f64 = rounds.iter().map(|round| round.seconds).sum();
    let clusters: f64 = rounds.iter().map(|round| round.cluster_seconds).sum();
    format!(
        "{} rounds took {} s. {} s more were spent on removing the old cluster and starting a new one before each \
         round.\n",
        rounds.len(),
        number(rounds_seconds),
        number(clusters)
    )
}

/// A table with a column for each number of jobs.
struct BySize<'a, F> {
    rounds: &'a [(usize, &'a F)],
    table: Table,
}

impl<'a, F> BySize<'a, F> {
    fn new(rounds: &'a [(usize, &'a F)]) -> Self {
        let sizes = rounds.iter().map(|(jobs, _)| format!("{} jobs", integer(*jobs as u64)));
        Self { rounds, table: Table::new(std::iter::once(String::new()).chain(sizes)) }
    }

    fn row(&mut self, name: &str, value: impl Fn(&F) -> String) {
        let values = self.rounds.iter().map(|(_, figures)| value(figures));
        self.table.row(std::iter::once(name.to_owned()).chain(values));
    }

    fn finish(self) -> Table {
        self.table
    }
}

/// Calls in a minute of an interval.
fn per_minute(interval: &Interval, count: impl Fn(&Calls) -> u64) -> String {
    number(count(&interval.calls) as f64 * 60.0 / interval.seconds)
}

/// Processor time in a minute of an interval.
fn cpu_per_minute(interval: &Interval) -> String {
    duration(interval.cpu_seconds * 60.0 / interval.seconds)
}

fn section(title: &str, text: &str, table: &Table) -> Option<String> {
    if table.is_empty() {
        return None;
    }
    let text = if text.is_empty() { String::new() } else { format!("{text}\n\n") };
    Some(format!("### {title}\n\n{text}{}", table.to_markdown()))
}
