//! Time and memory by length, side by side.

use crate::curves::{Cost, Row};
use crate::files::write_whole;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (1080, 460);

const TILEWRIGHT: RGBColor = RGBColor(0, 110, 190);
const STANDARD: RGBColor = RGBColor(210, 50, 40);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;
type Drawn<'a> = Result<(), Box<dyn std::error::Error + 'a>>;

/// Draws the rows on logarithmic axes.
pub(crate) fn draw(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = String::new();
    // The backend's errors borrow the backend.
    try_draw(&mut text, rows).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    write_whole(path, text.as_bytes())
}

fn try_draw<'a>(text: &'a mut String, rows: &[Row]) -> Drawn<'a> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((1, 2));
    panel(&panels[0], "CPU time of a call, ms", rows, |cost| 1e3 * cost.seconds)?;
    panel(&panels[1], "peak memory beyond inputs and outputs, MiB", rows, |cost| {
        cost.bytes as f64 / f64::from(1 << 20)
    })?;
    root.present()?;
    drop(panels);
    Ok(())
}

/// One quantity of both methods: the forward pass as lines, the backward pass dashed.
fn panel<'a>(area: &Area<'a>, caption: &str, rows: &[Row], of: fn(Cost) -> f64) -> Drawn<'a> {
    let points = |standard: bool, backward: bool| -> Points {
        let cost = |row: &Row| if standard { row.standard } else { Some(row.tilewright) };
        let rows = rows.iter().filter(|row| row.backward == backward);
        rows.filter_map(|row| Some((row.length as f64, of(cost(row)?).max(1e-3)))).collect()
    };
    let curves = [
        ("standard, backward", STANDARD, true, points(true, true)),
        ("standard, forward", STANDARD, false, points(true, false)),
        ("Tilewright, backward", TILEWRIGHT, true, points(false, true)),
        ("Tilewright, forward", TILEWRIGHT, false, points(false, false)),
    ];
    let range = |coordinate: fn(&(f64, f64)) -> f64| {
        let all = || curves.iter().flat_map(|(.., points)| points).map(coordinate);
        (all().fold(f64::MAX, f64::min) / 1.2..all().fold(f64::MIN_POSITIVE, f64::max) * 1.2).log_scale()
    };
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(caption, ("sans-serif", 16))
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(range(|point| point.0).base(2.0), range(|point| point.1))?;
    let mesh = &mut chart.configure_mesh();
    mesh.x_desc("queries and keys, N").x_labels(8).light_line_style(WHITE);
    mesh.x_label_formatter(&|n| format!("{n:.0}")).y_label_formatter(&|y| format!("{y}")).draw()?;
    for (name, colour, dashed, points) in curves {
        let style = colour.stroke_width(2);
        let drawn = if dashed {
            chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?
        } else {
            chart.draw_series(LineSeries::new(points, style))?
        };
        // A dash in the legend stands for a dashed line.
        let length = if dashed { 8 } else { 20 };
        drawn.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + length, y)], style));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}
