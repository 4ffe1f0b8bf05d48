//! Faults planted in the kernels that ship, one instruction each: the software GPU reports them, or the result is wrong.
//! The kernels as they are raise nothing in any of ten schedules. `planted/faults.json` has the list, with a reason each.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // a part of it is enough here
mod attention_trial;
mod common;
#[path = "../../cpu/tests/compression_common/mod.rs"]
mod compression_common;
mod compression_trial;
#[path = "planted/edit.rs"]
mod edit;
#[path = "planted/problem.rs"]
mod problem;

use common::{Turn, device, fault};
use cuda::Driver;
use edit::Edit;
use problem::Problem;
use serde::Deserialize;
use std::fmt::Write;
use std::path::Path;
use tilewright_cuda::Device;

/// A planted fault.
#[derive(Debug, Deserialize)]
struct Fault {
    /// A few words.
    name: String,
    /// Its numbers in the project's catalogue of faults.
    catalogue: Vec<u8>,
    /// Where it is planted.
    kernel: String,
    #[serde(flatten)]
    edit: Edit,
    /// What is asked of the device.
    problem: Problem,
    /// How it is found: kinds of the software GPU's faults, or `result` for a wrong one. If there are several, then which
    /// of them comes first depends on the schedule.
    found: Vec<String>,
    /// The kernel that stumbles over it, if that is another one.
    #[serde(default)]
    shows_in: Option<String>,
    /// Why it is one.
    reason: String,
}

fn faults() -> Vec<Fault> {
    serde_json::from_str(include_str!("planted/faults.json")).expect("a list of faults")
}

/// A fresh start with this schedule.
fn begin(software: &Driver, seed: u64) {
    software.set_seed(seed);
    software.forget_fault();
}

fn software() -> Option<(Turn, &'static Driver)> {
    let turn = device()?;
    let software = common::software();
    if software.is_none() {
        eprintln!("skipped 1: no software driver");
    }
    Some((turn, software?))
}

/// How a fault shows in one schedule: the kind that the software GPU reports, in the kernel at fault, or `result`.
fn sign(fault_in: &Fault, device: &Device, software: &Driver, seed: u64) -> Result<String, String> {
    begin(software, seed);
    let outcome = fault_in.problem.run(device);
    let said = fault();
    let Some((kind, rest)) = said.split_once(" in ") else {
        return if outcome.is_err() { Ok("result".into()) } else { Err("not found".into()) };
    };
    let kernel = fault_in.shows_in.as_ref().unwrap_or(&fault_in.kernel);
    let there = rest.starts_with(&**kernel) && rest.contains("PTX line");
    if there { Ok(kind.into()) } else { Err(format!("found elsewhere: {said}")) }
}

#[test]
fn every_planted_fault_is_found() {
    let Some((_turn, software)) = software() else { return };
    let mut wrong = String::new();
    for fault in faults() {
        for problem in plant(&fault, software) {
            writeln!(wrong, "{} in {}: {problem}", fault.name, fault.kernel).unwrap();
        }
    }
    software.load_instead(None);
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Schedules in which each fault is looked for.
const SCHEDULES: u64 = 10;

/// What is not as the list says.
fn plant(fault: &Fault, software: &Driver) -> Vec<String> {
    let edited = match edit::apply(&fault.kernel, &fault.edit) {
        Ok(edited) => edited,
        Err(problem) => return vec![problem],
    };
    software.load_instead(Some((&edited.before, &edited.after)));
    // Units are loaded once for each handle of a device.
    let device = Device::open(0).unwrap();
    let (mut problems, mut seen) = (Vec::new(), Vec::new());
    for seed in 0..SCHEDULES {
        match sign(fault, &device, software, seed) {
            Ok(sign) if fault.found.contains(&sign) => seen.push(sign),
            Ok(sign) => problems.push(format!("seed {seed}: {sign}: {}", self::fault())),
            Err(problem) => problems.push(format!("seed {seed}: {problem}")),
        }
    }
    let never = fault.found.iter().filter(|sign| !seen.contains(sign));
    problems.extend(never.map(|sign| format!("never found by {sign}")));
    problems
}

#[test]
fn kernels_as_they_are_raise_nothing_in_ten_schedules() {
    let Some((turn, software)) = software() else { return };
    for problem in Problem::ALL {
        for seed in 0..10 {
            begin(software, seed);
            let outcome = problem.run(&turn.device);
            assert!(outcome.is_ok() && fault().is_empty(), "{problem:?}, seed {seed}: {outcome:?} {}", fault());
        }
    }
    begin(software, 0);
}

/// The page on the software GPU has this list.
#[test]
fn the_list_is_published() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/softgpu.md");
    let page = std::fs::read_to_string(path).unwrap();
    let list = faults();
    let mut table = String::from("| fault | catalogue | kernel | found by |\n|---|---|---|---|\n");
    for fault in &list {
        let numbers = fault.catalogue.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let found = fault.found.join(", or ").replace("result", "a wrong result");
        let Fault { name, kernel, reason, .. } = fault;
        writeln!(table, "| **{name}**: {reason} | {numbers} | `{kernel}` | {found} |").unwrap();
    }
    assert!(page.contains(&table), "docs/src/softgpu.md should have\n{table}");
    assert!(page.contains(&format!("{} faults", list.len())), "{} faults", list.len());
    for number in (72..=83).chain([85]) {
        assert!(list.iter().any(|fault| fault.catalogue.contains(&number)), "fault {number} of the catalogue");
    }
}
