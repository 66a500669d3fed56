//! datjob-operator
fn main() {
    println!("{}", serde_json::to_string_pretty(&datjob_api::datjob::definition()).unwrap());
}
