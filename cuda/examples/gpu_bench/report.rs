//! The figures as JSON and as a table.

use crate::ceiling::{COPY, MMA};
use crate::{Args, Job, Size, Work};
use serde::Serialize;
use std::fmt::Write as _;
use tilewright_cuda::{CudaVersion, Device};

/// What was measured, where.
#[derive(Serialize)]
pub(crate) struct Report {
    device: String,
    capability: String,
    multiprocessors: u32,
    /// The CUDA version that the driver speaks.
    cuda: String,
    size: String,
    rounds: usize,
    /// Whether times mean anything.
    silicon: bool,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    family: &'static str,
    name: String,
    problem: String,
    milliseconds: f64,
    least: f64,
    most: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tflops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gigabytes: Option<f64>,
    /// Of what was measured of the device: `mma.sync` for operations, copying for bytes.
    share: f64,
    /// Times that reading the vector takes at the speed of copying.
    #[serde(skip_serializing_if = "Option::is_none")]
    readings: Option<f64>,
}

impl Report {
    /// `times` are in ascending order.
    pub(crate) fn new(device: &Device, args: &Args, jobs: &[Job], times: &[Vec<f32>]) -> Self {
        let median = |times: &[f32]| f64::from(times[times.len() / 2]);
        let rate = |name: &str| {
            let found = jobs.iter().zip(times).find(|(job, _)| job.name == name);
            found.map_or(f64::NAN, |(job, times)| amount(job.work) / median(times))
        };
        let (copy, mma) = (rate(COPY), rate(MMA));
        let rows = jobs.iter().zip(times).map(|(job, times)| {
            let milliseconds = median(times);
            let rate = amount(job.work) / milliseconds;
            let (ceiling, flops, vector) = match job.work {
                Work::Flops(_) => (mma, true, None),
                Work::Bytes { vector, .. } => (copy, false, vector),
            };
            Row {
                family: job.family,
                name: job.name.clone(),
                problem: job.problem.clone(),
                milliseconds,
                least: times.first().copied().map_or(f64::NAN, f64::from),
                most: times.last().copied().map_or(f64::NAN, f64::from),
                // A rate is per millisecond.
                tflops: flops.then_some(rate / 1e9),
                gigabytes: (!flops).then_some(rate / 1e6),
                share: rate / ceiling,
                readings: vector.map(|vector| milliseconds * copy / vector),
            }
        });
        let (major, minor) = device.capability();
        Self {
            device: device.name().into(),
            capability: format!("{major}.{minor}"),
            multiprocessors: device.multiprocessors(),
            cuda: CudaVersion(device.driver_version()).to_string(),
            size: format!("{:?}", args.size).to_lowercase(),
            rounds: args.rounds,
            silicon: args.size != Size::Dry && std::env::var_os("TILEWRIGHT_SOFTGPU").is_none(),
            rows: rows.collect(),
        }
    }

    pub(crate) fn json(&self) -> String {
        // Numbers and strings always have a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "{}, compute capability {}, {} multiprocessors, driver for CUDA {}; size {}, medians of {} rounds.\n\n",
            self.device, self.capability, self.multiprocessors, self.cuda, self.size, self.rounds
        );
        if !self.silicon {
            text.push_str("This was a dry run: the times mean nothing.\n\n");
        }
        text.push_str("| | problem | ms | TFLOP/s | GB/s | share of ceiling | readings of the vector |\n");
        text.push_str("|---|---|---:|---:|---:|---:|---:|\n");
        let number = |x: Option<f64>, digits: usize| x.map_or(String::new(), |x| format!("{x:.digits$}"));
        for row in &self.rows {
            let _ = writeln!(
                text,
                "| {} | {} | {:.4} | {} | {} | {:.2} | {} |",
                row.name,
                row.problem,
                row.milliseconds,
                number(row.tflops, 1),
                number(row.gigabytes, 0),
                row.share,
                number(row.readings, 2)
            );
        }
        text.push_str(
            "\nCeilings are those measured here: `mma.sync` on registers alone, and copying. A reading of the vector is its bytes \
             at the speed of copying.\n",
        );
        text
    }
}

/// Operations or bytes.
fn amount(work: Work) -> f64 {
    match work {
        Work::Flops(flops) => flops,
        Work::Bytes { moved, .. } => moved,
    }
}
