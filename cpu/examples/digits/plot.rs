//! Loss against bytes, as a picture.

use crate::settings::Settings;
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (960, 640);

/// Bytes a worker has sent so far, loss.
pub(crate) type Point = (f64, f64);

/// How one method did.
pub(crate) struct Curve {
    pub(crate) name: String,
    /// By method.
    colour: RGBColor,
    /// A thick line is a low density.
    width: u32,
    /// A dashed line is without error feedback.
    dashed: bool,
    pub(crate) points: Vec<Point>,
}

impl Curve {
    pub(crate) fn new(settings: &Settings, points: Vec<Point>) -> Self {
        let colours =
            [BLACK, RGBColor(0, 110, 190), RGBColor(150, 150, 150), RGBColor(0, 140, 70), RGBColor(210, 50, 40)];
        Self {
            name: settings.to_string(),
            colour: colours[settings.method as usize],
            width: if settings.density < 0.005 { 3 } else { 1 },
            dashed: !settings.error_feedback,
            points,
        }
    }
}

/// Draws the curves on logarithmic axes.
pub(crate) fn draw(path: &Path, curves: &[Curve]) -> Result<()> {
    // The backend's errors borrow the backend.
    try_draw(path, curves).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn try_draw(path: &Path, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|(bytes, loss)| *bytes > 0.0 && *loss > 0.0);
    let range = |of: fn(&Point) -> f64| {
        let least = points().map(of).fold(f64::MAX, f64::min);
        let most = points().map(of).fold(f64::MIN_POSITIVE, f64::max);
        (least.min(most) / 1.1..most * 1.1).log_scale()
    };
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(range(|point| point.0), range(|point| point.1))?;
    chart
        .configure_mesh()
        .x_desc("bytes sent by a worker")
        .y_desc("training loss, mean of ten steps and all seeds")
        .x_label_formatter(&|bytes| format!("{bytes:.0e}"))
        .y_label_formatter(&|loss| format!("{loss}"))
        .light_line_style(WHITE)
        .draw()?;
    for curve in curves {
        let (style, points) = (curve.colour.stroke_width(curve.width), curve.points.iter().copied());
        let drawn = if curve.dashed {
            chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?
        } else {
            chart.draw_series(LineSeries::new(points, style))?
        };
        // A dash in the legend stands for a dashed line.
        let length = if curve.dashed { 8 } else { 20 };
        drawn.label(&curve.name).legend(move |(x, y)| PathElement::new([(x, y), (x + length, y)], style));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerLeft).background_style(WHITE.mix(0.8)).draw()?;
    root.present()?;
    Ok(())
}
