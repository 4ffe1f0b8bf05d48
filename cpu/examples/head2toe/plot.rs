//! Features kept in each layer, as bars.

use crate::files::write_whole;
use crate::methods::Outcome;
use crate::report::by_task;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const WIDTH: u32 = 960;
/// Of one task.
const HEIGHT: u32 = 190;
/// For the layers' names, below the last.
const NAMES: u32 = 110;

/// A row of bars for each task: the mean over its seeds.
pub(crate) fn draw(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut text = String::new();
    // The backend's errors borrow the backend.
    try_draw(&mut text, outcomes).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    write_whole(path, text.as_bytes())
}

fn try_draw<'a>(text: &'a mut String, outcomes: &[Outcome]) -> Result<(), Box<dyn std::error::Error + 'a>> {
    let tasks = by_task(outcomes);
    let size = (WIDTH, HEIGHT * tasks.len() as u32 + NAMES);
    let root = SVGBackend::with_string(text, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (bars, names) = root.split_vertically(HEIGHT * tasks.len() as u32);
    for (area, (task, of)) in bars.split_evenly((tasks.len(), 1)).iter().zip(&tasks) {
        let Some(first) = of.first() else { continue };
        let layers = first.selection.layers.len();
        let kept = |layer: usize| {
            let of_seed = |outcome: &&Outcome| outcome.selection.layers.get(layer).map_or(0, |(_, kept)| *kept);
            of.iter().map(of_seed).sum::<usize>() as f64 / of.len() as f64
        };
        let most = (0..layers).map(kept).fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .caption(format!("{task}: features kept of each layer, mean over {} seeds", of.len()), ("sans-serif", 15))
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..layers as f64, 0.0..1.08 * most)?;
        chart.configure_mesh().disable_x_mesh().disable_x_axis().light_line_style(WHITE).y_labels(4).draw()?;
        chart.draw_series((0..layers).map(|layer| {
            let (left, right) = (layer as f64 + 0.12, layer as f64 + 0.88);
            Rectangle::new([(left, 0.0), (right, kept(layer))], RGBColor(0, 110, 190).filled())
        }))?;
    }
    if let Some(outcome) = outcomes.first() {
        let layers = &outcome.selection.layers;
        let style = ("sans-serif", 13).into_font().transform(FontTransform::Rotate270).color(&BLACK);
        let style = style.pos(Pos::new(HPos::Right, VPos::Center));
        let step = f64::from(WIDTH - 48 - 2 * 6) / layers.len() as f64;
        for (layer, (name, _)) in layers.iter().enumerate() {
            let middle = 54.0 + step * (layer as f64 + 0.5);
            names.draw(&Text::new(name.as_str(), (middle as i32, 4), style.clone()))?;
        }
    }
    root.present()?;
    drop((bars, names));
    Ok(())
}
