//! What is refused, and with which words: a specification, data or a start that are ill-posed.

use crate::grouplasso::Fault;
use crate::grouplasso::kernel::Pass;
use tilewright_grouplasso::data::check_features;
use tilewright_grouplasso::problem::check_start;
use tilewright_grouplasso::{
    Data, Element, GroupLassoError, GroupLassoSpec, Groups, Layout, Penalty, Response, Start, Stopping, Targets,
    Weights,
};

impl Pass {
    /// The part of a specification that this kernel judges: the rest it takes as it is.
    pub(crate) fn judged(&self, spec: &GroupLassoSpec) -> GroupLassoSpec {
        let spec = spec.clone();
        match self.fault {
            Some(Fault::NegativeLambdaTaken) => GroupLassoSpec { lambda: 1.0, ..spec },
            Some(Fault::MixtureUnchecked) => GroupLassoSpec { penalty: Penalty::GroupLasso, ..spec },
            Some(Fault::GroupWeightsUnchecked) => match &spec.weights {
                // Their number is still looked at.
                Weights::Given(given) => {
                    let weights = Weights::Given(given.iter().map(|w| if *w >= 0.0 { *w } else { 1.0 }).collect());
                    GroupLassoSpec { weights, ..spec }
                }
                _ => spec,
            },
            _ => spec,
        }
    }

    fn check_spec(&self, spec: &GroupLassoSpec, features: usize) -> Result<(), GroupLassoError> {
        let spec = self.judged(spec);
        match (&spec.groups, self.fault) {
            (Groups::Lists(lists), Some(Fault::GroupsMayMiss)) => {
                let mut lists = lists.clone();
                let groups = lists.len();
                lists
                    .extend((0..features).filter(|j| !lists.concat().contains(j)).map(|j| vec![j]).collect::<Vec<_>>());
                Layout::new(&Groups::Lists(lists), features)?;
                let given = matches!(&spec.weights, Weights::Given(given) if given.len() != groups);
                let rest = GroupLassoSpec { groups: Groups::Rows, weights: Weights::Ones, ..spec.clone() };
                if given { spec.validate(features) } else { rest.validate(features) }
            }
            (Groups::Lists(lists), Some(Fault::GroupsMayOverlap)) => {
                GroupLassoSpec { groups: Groups::Overlapping(lists.clone()), ..spec.clone() }.validate(features)
            }
            _ => spec.validate(features),
        }
    }

    /// Refuses what must be refused, before any work.
    pub(crate) fn admit<T: Element>(
        &self,
        spec: &GroupLassoSpec,
        data: &Data<'_, T>,
        stopping: &Stopping,
    ) -> Result<(), GroupLassoError> {
        if !self.is(Fault::GapUnchecked) {
            stopping.validate()?;
        }
        let (samples, features) = data.x.dim();
        self.check_spec(spec, features)?;
        self.check_response(spec, samples, data)?;
        match self.fault {
            Some(Fault::NanTaken) => Ok(()),
            Some(Fault::InfinityTaken) => {
                let finite = data.x.map(|x| if x.to_f64().is_nan() { *x } else { T::default() });
                check_features(finite.view())
            }
            Some(Fault::FirstSampleChecked) => check_features(data.x.slice_axis(ndarray::Axis(0), (0..1).into())),
            _ => check_features(data.x),
        }
    }

    fn check_response<T: Element>(
        &self,
        spec: &GroupLassoSpec,
        samples: usize,
        data: &Data<'_, T>,
    ) -> Result<(), GroupLassoError> {
        let weights: Option<Vec<f64>> = data.sample_weights.map(|weights| match self.fault {
            Some(Fault::NegativeSamplesTaken) => weights.iter().map(|w| w.abs()).collect(),
            Some(Fault::NoWeightTaken) if weights.iter().all(|w| *w == 0.0) => vec![1.0; weights.len()],
            _ => weights.to_vec(),
        });
        match (data.targets, self.fault) {
            (Targets::Labels { labels, classes }, Some(Fault::LabelOutOfRangeTaken)) => {
                let labels: Vec<u32> =
                    labels.iter().map(|label| (*label).min((classes as u32).saturating_sub(1))).collect();
                let targets = Targets::Labels { labels: &labels, classes };
                Response::new(spec.loss, samples, targets, weights.as_deref())?;
            }
            (Targets::Values(values), Some(Fault::NanTargetTaken)) => {
                let values = values.map(|y| if y.is_finite() { *y } else { 0.0 });
                Response::new(spec.loss, samples, Targets::Values(values.view()), weights.as_deref())?;
            }
            _ => {
                Response::new(spec.loss, samples, data.targets, weights.as_deref())?;
            }
        }
        Ok(())
    }

    /// Whether a start fits.
    pub(crate) fn admit_start(&self, shape: (usize, usize), start: &Start) -> Result<(), GroupLassoError> {
        if self.is(Fault::StartUnchecked) { Ok(()) } else { check_start(shape, start) }
    }
}
