//! The Rust side of `peers/grouplasso.py`: solves what each line of the standard input asks for, and answers with its time
//! as a line of JSON.
//!
//! ```text
//! grouplasso_peer FOLDER f64|f32
//! {"lambdas": [0.1], "gap": 1e-6, "out": "w.bin"}
//! ```
//!
//! `FOLDER` holds `XT.npy` (features × samples), `Y.npy` (samples × outputs) and `meta.json`. `w.bin` takes, for each λ, the
//! number of non-zero rows, their indices, and their coefficients.

use ndarray::{Array2, ArrayView2};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;
use tilewright_cpu::CpuGroupLasso;
use tilewright_cpu::grouplasso::source::{FeatureSource, Features, Orientation};
use tilewright_grouplasso::{Data, Element, GroupLassoSolver, GroupLassoSpec, Loss, Solution, Stopping, Targets};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, dtype] = &arguments[..] else { return Err("usage: grouplasso_peer FOLDER f64|f32".into()) };
    let folder = Path::new(folder);
    let meta: Value = serde_json::from_slice(&std::fs::read(folder.join("meta.json"))?)?;
    let loss = if meta["loss"] == "mn" { Loss::Multinomial } else { Loss::LeastSquares };
    let columns = read(&folder.join("XT.npy"), Orientation::FeaturesFirst)?;
    let y = read(&folder.join("Y.npy"), Orientation::SamplesFirst)?.reversed_axes();
    match dtype.as_str() {
        "f64" => serve(columns.view(), y.view(), loss),
        "f32" => serve(columns.mapv(|x| x as f32).view(), y.view(), loss),
        other => Err(format!("{other}: expected f64 or f32").into()),
    }
}

/// Columns, as rows.
fn read(file: &Path, orientation: Orientation) -> Result<Array2<f64>, Box<dyn Error>> {
    let source = Features::open(file, orientation)?;
    let mut columns = Array2::zeros((source.features(), source.samples()));
    let room = columns.as_slice_mut().ok_or("a new array is in one piece")?;
    source.read(0..source.features(), room)?;
    Ok(columns)
}

fn serve<T: Element>(columns: ArrayView2<'_, T>, y: ArrayView2<'_, f64>, loss: Loss) -> Result<(), Box<dyn Error>>
where
    CpuGroupLasso: GroupLassoSolver<T>,
{
    let label = |row: ndarray::ArrayView1<'_, f64>| row.iter().position(|y| *y > 0.5).unwrap_or(0) as u32;
    let labels: Vec<u32> = y.rows().into_iter().map(label).collect();
    let targets = match loss {
        Loss::LeastSquares => Targets::Values(y),
        Loss::Multinomial => Targets::Labels { labels: &labels, classes: y.ncols() },
    };
    let data = Data { x: columns.reversed_axes(), targets, sample_weights: None };
    answer(&json!({"ready": true}))?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let lambdas: Vec<f64> = serde_json::from_value(request["lambdas"].clone())?;
        let stopping = Stopping { gap: request["gap"].as_f64().ok_or("gap")?, ..Stopping::default() };
        let spec = GroupLassoSpec { intercept: false, ..GroupLassoSpec::rows(loss, lambdas[0]) };
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let path = CpuGroupLasso.solve_path(&spec, &data, &lambdas, &stopping, &mut |_| ControlFlow::Continue(()))?;
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        write(request["out"].as_str().ok_or("out")?, &path)?;
        let worst = path.iter().map(|point| point.certificate.relative_gap()).fold(0.0, f64::max);
        answer(&json!({"wall_s": wall, "cpu_s": cpu, "gap": worst}))?;
    }
    Ok(())
}

fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

fn write(file: &str, path: &[Solution]) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    for point in path {
        out.write_all(&(point.w.indices().len() as i64).to_le_bytes())?;
        for row in point.w.indices() {
            out.write_all(&(*row as i64).to_le_bytes())?;
        }
        let values: Array2<f64> = point.w.values().to_owned();
        for w in &values {
            out.write_all(&w.to_le_bytes())?;
        }
    }
    out.flush()
}

fn answer(line: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
