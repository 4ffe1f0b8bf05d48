//! The proximal operator of the group lasso, in place.

use crate::{BenchError, Job, Size, Work, numbers};
use tilewright_cuda::grouplasso::{ResidentGroupLasso, ResidentGroups};
use tilewright_cuda::{Buffer, Device};
use tilewright_grouplasso::{GroupLassoSpec, Groups, Layout, Loss};

/// Numbers of a row.
const OUTPUTS: usize = 10;

pub(crate) fn jobs(device: &Device, size: Size) -> Result<Vec<Job>, BenchError> {
    let features = size.of(1 << 8, 1 << 20, 1 << 23);
    let spec = GroupLassoSpec::rows(Loss::Multinomial, 1e-9);
    let layout = Layout::new(&Groups::Rows, features).map_err(BenchError::GroupLasso)?;
    let method = ResidentGroupLasso::new(device)?;
    let groups = ResidentGroups::new(device, &spec, &layout)?;
    let values: Vec<f64> = numbers(6, features * OUTPUTS).map(f64::from).collect();
    let mut w = Buffer::from_slice(device, "w", &values)?;
    Ok(vec![Job {
        family: "group lasso",
        name: "prox f64".into(),
        problem: format!("{features} rows of {OUTPUTS}"),
        // `W` read and written, three numbers a group.
        work: Work::Bytes { moved: (16 * features * OUTPUTS + 24 * features) as f64, vector: None },
        run: Box::new(move || Ok(method.prox(&groups, 1.0, &mut w, OUTPUTS)?)),
    }])
}
