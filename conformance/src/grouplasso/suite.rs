//! Which cases a trial is made of.

use crate::grouplasso::case::{
    Case, Design, Flaw, Grouping, Lambda, ProxCase, RefuseCase, Sampling, SelectCase, SolveCase, Structure, Task,
    Values, Weighting,
};
use crate::grouplasso::subject::Column;
use crate::regressions::{self, RegressionError};
pub use crate::suite::Suite;
use crate::suite::{after_recorded, sample};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::HashSet;
use tilewright_grouplasso::{Keep, Loss, Penalty};
use tilewright_scalar::Format;

const FORMATS: [Format; 4] = [Format::F64, Format::F32, Format::F16, Format::BF16];
const LOSSES: [Loss; 2] = [Loss::LeastSquares, Loss::Multinomial];
const PENALTIES: [Penalty; 3] =
    [Penalty::GroupLasso, Penalty::SparseGroup { tau: 0.3 }, Penalty::ElasticNet { alpha: 0.7 }];
const GROUPINGS: [Grouping; 6] =
    [Grouping::Rows, Grouping::Ragged, Grouping::Equal(4), Grouping::One, Grouping::Lists(5), Grouping::Overlap(4)];

/// The recorded cases, with their reasons.
///
/// # Errors
/// [`RegressionError`], which a test rules out.
pub fn regressions() -> Result<Vec<(Case, &'static str)>, RegressionError> {
    regressions::parse(include_str!("../../vectors/grouplasso_regressions.txt"))
}

/// The cases of a suite, recorded ones first. `seed` shifts all others' data and picks the random combinations.
pub fn cases(suite: Suite, seed: u32) -> Vec<Case> {
    let recorded = regressions().unwrap_or_default().into_iter().map(|(case, _)| case).collect();
    let mut list: Vec<Case> = Vec::new();
    list.extend(prox_cases().into_iter().map(Case::Prox));
    list.extend(select_cases().into_iter().map(Case::Select));
    list.extend(solve_cases().into_iter().map(Case::Solve));
    list.extend(refusals());
    if suite != Suite::Quick {
        list.extend(larger().into_iter().map(Case::Solve));
    }
    for case in &mut list {
        shift(case, seed);
    }
    let random = match suite {
        Suite::Quick => [40, 20, 12],
        Suite::Full => [600, 300, 150],
        Suite::Extensive => [8000, 4000, 2000],
    };
    for (column, count) in Column::ALL.into_iter().zip(random) {
        list.extend(sample(&any_case(column), count, seed ^ column as u32));
    }
    let mut seen = HashSet::new();
    list.retain(|case| seen.insert(case.to_string()));
    after_recorded(recorded, list)
}

fn shift(case: &mut Case, by: u32) {
    let seed = match case {
        Case::Prox(case) => &mut case.seed,
        Case::Select(case) => &mut case.seed,
        Case::Solve(case) => &mut case.seed,
        Case::Refuse(case) => &mut case.seed,
    };
    *seed = seed.wrapping_add(by);
}

fn structure(grouping: Grouping, weighting: Weighting, penalty: Penalty) -> Structure {
    Structure { grouping, weighting, penalty }
}

fn prox_cases() -> Vec<ProxCase> {
    let mut list = Vec::new();
    for format in FORMATS {
        for (n, (grouping, penalty)) in
            GROUPINGS.into_iter().flat_map(|g| PENALTIES.into_iter().map(move |p| (g, p))).enumerate()
        {
            let weighting = [Weighting::SqrtSize, Weighting::Drawn, Weighting::SomeFree][(n / 3 + n) % 3];
            let structure = structure(grouping, weighting, penalty);
            list.push(ProxCase { structure, step: 0.5, ..ProxCase::new(format, 29, 3) });
        }
        // A unit of λ for each scale.
        let scales = [
            (Values::Huge, f64::from(format.max_exponent - 8).exp2()),
            (Values::Tiny, f64::from(format.min_exponent + 5).exp2()),
            (Values::Subnormal, f64::from(format.min_exponent - format.precision as i32 + 7).exp2()),
        ];
        for (values, lambda) in scales {
            for grouping in [Grouping::Rows, Grouping::Ragged, Grouping::Lists(4)] {
                for penalty in PENALTIES {
                    let structure = structure(grouping, Weighting::Drawn, penalty);
                    // The ridge is no norm: at these scales it is nothing, or everything.
                    let lambda = if matches!(penalty, Penalty::ElasticNet { .. }) { lambda.min(1e4) } else { lambda };
                    list.push(ProxCase { structure, lambda, values, ..ProxCase::new(format, 17, 3) });
                }
            }
        }
        for values in
            [Values::Zero, Values::Ties, Values::Edge, Values::Mixed, Values::Sparse, Values::Nan, Values::Infinite]
        {
            for (n, grouping) in GROUPINGS.into_iter().enumerate() {
                let penalty = PENALTIES[n % 3];
                let structure = structure(grouping, [Weighting::Ones, Weighting::SqrtSize][n % 2], penalty);
                list.push(ProxCase { structure, values, step: 0.25, ..ProxCase::new(format, 36, 4) });
            }
        }
        for penalty in PENALTIES {
            let structure = structure(Grouping::Equal(4), Weighting::SqrtSize, penalty);
            list.push(ProxCase { structure, values: Values::Edge, ..ProxCase::new(format, 42, 2) });
        }
    }
    for lambda in [0.0, 1e-300, 0.03, 100.0] {
        for grouping in [Grouping::Rows, Grouping::Ragged] {
            let structure = structure(grouping, Weighting::SqrtSize, Penalty::SparseGroup { tau: 0.5 });
            list.push(ProxCase { structure, lambda, step: 3.0, ..ProxCase::new(Format::F64, 23, 2) });
        }
    }
    for penalty in [
        Penalty::SparseGroup { tau: 0.0 },
        Penalty::SparseGroup { tau: 1.0 },
        Penalty::ElasticNet { alpha: 0.0 },
        Penalty::ElasticNet { alpha: 1.0 },
    ] {
        let structure = structure(Grouping::Ragged, Weighting::SqrtSize, penalty);
        list.push(ProxCase { structure, ..ProxCase::new(Format::F32, 23, 2) });
    }
    let free = structure(Grouping::Ragged, Weighting::AllFree, Penalty::GroupLasso);
    list.push(ProxCase { structure: free, ..ProxCase::new(Format::F32, 23, 2) });
    // One of each, one long group, columns by the hundred.
    for (features, outputs, grouping) in [
        (1, 1, Grouping::Rows),
        (1, 1, Grouping::One),
        (600, 5, Grouping::One),
        (9, 130, Grouping::Rows),
        (257, 1, Grouping::Equal(16)),
    ] {
        for format in [Format::F64, Format::F32] {
            let structure = Structure { grouping, ..Structure::ROWS };
            list.push(ProxCase { structure, step: 0.7, ..ProxCase::new(format, features, outputs) });
        }
    }
    list
}

fn select_cases() -> Vec<SelectCase> {
    let mut list = Vec::new();
    for format in FORMATS {
        for (n, values) in Values::ALL.into_iter().filter(|values| *values != Values::Edge).enumerate() {
            let keep = [Keep::Fraction(0.1), Keep::Features(13)][n % 2];
            list.push(SelectCase { keep, values, ..SelectCase::new(format, 90, 3) });
            let keep = [Keep::Features(1), Keep::Fraction(0.55)][n % 2];
            list.push(SelectCase { values, keep, seed: 2, ..SelectCase::new(format, 37, 5) });
        }
    }
    for fraction in [1e-9, 0.001, 0.01, 0.29, 0.3, 0.57, 0.999, 1.0] {
        for values in [Values::Heavy, Values::Ties] {
            list.push(SelectCase { keep: Keep::Fraction(fraction), values, ..SelectCase::new(Format::F32, 100, 2) });
        }
    }
    for features in [1, 2, 50, 99, 100, 101, 5000] {
        for values in [Values::Heavy, Values::Ties] {
            list.push(SelectCase { keep: Keep::Features(features), values, ..SelectCase::new(Format::F64, 100, 2) });
        }
    }
    list.push(SelectCase::new(Format::F32, 1, 1));
    list.push(SelectCase { keep: Keep::Fraction(0.05), ..SelectCase::new(Format::F32, 1500, 10) });
    list.push(SelectCase { keep: Keep::Features(7), ..SelectCase::new(Format::F64, 40, 700) });
    list
}

/// Small enough for all laws.
fn small(loss: Loss) -> SolveCase {
    SolveCase::new(loss, 20, 15, 3)
}

/// More features than samples, and groups enough to screen.
fn wide(loss: Loss) -> SolveCase {
    SolveCase::new(loss, 30, 80, 3)
}

fn solve_cases() -> Vec<SolveCase> {
    let mut list = Vec::new();
    for loss in LOSSES {
        kinds(loss, &mut list);
        designs(loss, &mut list);
        options(loss, &mut list);
        sizes(loss, &mut list);
        tasks(loss, &mut list);
        edges(loss, &mut list);
    }
    list
}

/// Groups, penalties, weights.
fn kinds(loss: Loss, list: &mut Vec<SolveCase>) {
    for (n, grouping) in GROUPINGS.into_iter().enumerate() {
        for (m, penalty) in PENALTIES.into_iter().enumerate() {
            let weighting = [Weighting::SqrtSize, Weighting::Drawn, Weighting::Ones][(n + m) % 3];
            let structure = structure(grouping, weighting, penalty);
            let format = FORMATS[(n + 2 * m) % 4];
            list.push(SolveCase { structure, format, intercept: (n + m) % 3 > 0, ..small(loss) });
        }
        let structure = structure(grouping, Weighting::SqrtSize, PENALTIES[n % 2]);
        list.push(SolveCase { structure, lambda: Lambda::Share(0.2), gap: 1e-4, ..wide(loss) });
    }
    for penalty in [
        Penalty::SparseGroup { tau: 0.0 },
        Penalty::SparseGroup { tau: 0.95 },
        Penalty::SparseGroup { tau: 1.0 },
        Penalty::ElasticNet { alpha: 0.05 },
        Penalty::ElasticNet { alpha: 1.0 },
    ] {
        list.push(SolveCase { structure: structure(Grouping::Ragged, Weighting::SqrtSize, penalty), ..small(loss) });
    }
    for alpha in [0.5, 0.9] {
        let structure = Structure { penalty: Penalty::ElasticNet { alpha }, ..Structure::ROWS };
        list.push(SolveCase { structure, intercept: alpha < 0.7, ..small(loss) });
    }
    // Ridge regression selects nothing, and has no largest λ.
    let ridge = structure(Grouping::Rows, Weighting::Ones, Penalty::ElasticNet { alpha: 0.0 });
    list.push(SolveCase { structure: ridge, lambda: Lambda::Exactly(0.2), ..small(loss) });
    for (n, grouping) in [Grouping::Rows, Grouping::Equal(3), Grouping::Overlap(4)].into_iter().enumerate() {
        let structure = structure(grouping, Weighting::SomeFree, PENALTIES[n]);
        let case = SolveCase { structure, lambda: Lambda::Share(0.3), ..SolveCase::new(loss, 40, 9, 2) };
        list.push(case.clone());
        list.push(SolveCase { intercept: false, scale: true, format: Format::F32, ..case });
    }
}

fn designs(loss: Loss, list: &mut Vec<SolveCase>) {
    for (n, design) in Design::ALL.into_iter().enumerate() {
        if design == Design::Remote {
            list.push(SolveCase { design, centre: true, scale: true, ..small(loss) });
            list.push(SolveCase { design, centre: true, scale: true, intercept: false, ..small(loss) });
        }
        if design == Design::Remote || (design == Design::MissingClass && loss == Loss::LeastSquares) {
            continue;
        }
        // So that their mean is exact: what is left of constants by rounding is no problem.
        let samples = if design == Design::ConstantTargets { 16 } else { 20 };
        let case = SolveCase { samples, design, ..small(loss) };
        for (m, format) in FORMATS.into_iter().enumerate() {
            let extreme = matches!(design, Design::Huge | Design::Tiny | Design::Subnormal | Design::Mixed);
            if extreme || m == n % 4 || (m + 2) % 4 == n % 4 {
                let grouping = [Grouping::Rows, Grouping::Ragged][m % 2];
                list.push(SolveCase { format, structure: Structure { grouping, ..Structure::ROWS }, ..case.clone() });
            }
        }
        // Deviations of subnormal columns are nobody's strength.
        list.push(SolveCase {
            centre: true,
            scale: design != Design::Subnormal,
            intercept: n % 2 == 0,
            ..case.clone()
        });
        if !matches!(design, Design::Offset | Design::ConstantTargets) {
            list.push(SolveCase { intercept: false, gap: 1e-4, ..case });
        }
    }
    // The curvature of a group whose columns are alike is not that of its longest one.
    for (design, grouping) in
        [(Design::Layered, Grouping::One), (Design::Correlated, Grouping::One), (Design::Layered, Grouping::Equal(5))]
    {
        let structure = Structure { grouping, ..Structure::ROWS };
        list.push(SolveCase { design, structure, gap: 1e-4, ..small(loss) });
    }
    let missing = Design::MissingClass;
    if loss == Loss::Multinomial {
        list.push(SolveCase { design: missing, outputs: 2, ..small(loss) });
        list.push(SolveCase { design: missing, outputs: 5, task: Task::Warm, ..small(loss) });
        list.push(SolveCase { design: missing, task: Task::Path(3), ..small(loss) });
        list.push(SolveCase { design: missing, task: Task::Far, ..small(loss) });
        list.push(SolveCase { sampling: Some(Sampling::WithoutLast), task: Task::Far, ..small(loss) });
        list.push(SolveCase { design: missing, task: Task::Far, intercept: false, seed: 2, ..small(loss) });
    }
}

fn options(loss: Loss, list: &mut Vec<SolveCase>) {
    for bits in 0..8 {
        let [intercept, centre, scale] = [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0];
        let sampling = [None, Some(Sampling::Drawn), Some(Sampling::SomeZero), Some(Sampling::Counts)][bits / 2];
        let case = SolveCase { intercept, centre, scale, sampling, ..small(loss) };
        list.push(case.clone());
        list.push(SolveCase {
            structure: Structure { grouping: Grouping::Ragged, ..Structure::ROWS },
            seed: 2,
            ..case
        });
    }
    for sampling in Sampling::ALL {
        list.push(SolveCase { sampling: Some(sampling), gap: 1e-8, ..small(loss) });
        list.push(SolveCase { sampling: Some(sampling), scale: true, seed: 3, ..small(loss) });
        // Weights 0 may leave a class without anybody.
        list.push(SolveCase { sampling: Some(sampling), samples: 8, outputs: 4, ..small(loss) });
    }
    for gap in [1e-4, 1e-8] {
        for format in FORMATS {
            list.push(SolveCase { gap, format, seed: 4, ..small(loss) });
        }
        list.push(SolveCase { gap, lambda: Lambda::Share(0.3), ..wide(loss) });
        let structure = structure(Grouping::Ragged, Weighting::SqrtSize, PENALTIES[1]);
        list.push(SolveCase { gap, structure, seed: 5, ..small(loss) });
    }
}

fn sizes(loss: Loss, list: &mut Vec<SolveCase>) {
    let least = if loss == Loss::Multinomial { 2 } else { 1 };
    for (samples, features, outputs) in [
        (1, 1, least),
        (2, 1, least),
        (1, 5, 3),
        (2, 30, 2),
        (5, 7, 5),
        (60, 4, least),
        (50, 20, 5),
        (24, 100, least),
        (33, 65, 2),
    ] {
        let case = SolveCase { lambda: Lambda::Share(0.25), ..SolveCase::new(loss, samples, features, outputs) };
        list.push(case.clone());
        list.push(SolveCase { intercept: false, format: Format::F32, seed: 2, ..case });
    }
    // One output, which some solvers of groups stop at.
    for grouping in [Grouping::Ragged, Grouping::Equal(4), Grouping::Lists(4), Grouping::One] {
        for (weighting, format) in
            [(Weighting::SqrtSize, Format::F64), (Weighting::Drawn, Format::F32), (Weighting::Ones, Format::F64)]
        {
            let structure = structure(grouping, weighting, Penalty::GroupLasso);
            let case = SolveCase { structure, format, seed: 3, ..SolveCase::new(loss, 20, 15, least) };
            list.push(SolveCase { gap: if weighting == Weighting::Ones { 1e-8 } else { 1e-6 }, ..case });
        }
    }
    for design in [Design::Correlated, Design::Layered] {
        let case = SolveCase { design, lambda: Lambda::Share(0.3), gap: 1e-4, ..wide(loss) };
        list.push(SolveCase { format: Format::F16, ..case.clone() });
        list.push(SolveCase { samples: 50, features: 30, ..case });
    }
}

fn tasks(loss: Loss, list: &mut Vec<SolveCase>) {
    for (n, grouping) in [Grouping::Rows, Grouping::Ragged, Grouping::Overlap(4)].into_iter().enumerate() {
        let penalty = PENALTIES[n];
        let structure = Structure { grouping, penalty, ..Structure::ROWS };
        let tasks = [Task::Warm, Task::Path(4), Task::Interrupt(1), Task::Interrupt(2), Task::Far, Task::Limit(0)];
        for task in tasks.into_iter().chain([Task::Limit(3), Task::Cut(2), Task::Cut(3)]) {
            let format = [Format::F64, Format::F32, Format::F16][n];
            let case = SolveCase { structure, task, format, intercept: n < 2, ..small(loss) };
            list.push(SolveCase { scale: n == 1, ..case.clone() });
            if !matches!(task, Task::Warm | Task::Far) && n < 2 {
                list.push(SolveCase { samples: 30, features: 50, lambda: Lambda::Share(0.2), gap: 1e-4, ..case });
            }
        }
    }
    list.push(SolveCase { task: Task::Path(1), ..small(loss) });
    list.push(SolveCase { task: Task::Interrupt(2), gap: 1e-8, lambda: Lambda::Share(0.05), ..small(loss) });
    list.push(SolveCase { task: Task::Interrupt(4), gap: 1e-8, lambda: Lambda::Share(0.02), ..small(loss) });
    list.push(SolveCase { task: Task::Cut(1), ..small(loss) });
    // Nobody proves that much.
    list.push(SolveCase { gap: 1e-20, ..small(loss) });
}

/// λ at the ends of its range.
fn edges(loss: Loss, list: &mut Vec<SolveCase>) {
    for share in [0.9, 0.999, 1.001, 3.0] {
        list.push(SolveCase { lambda: Lambda::Share(share), gap: 1e-8, ..small(loss) });
        let structure = structure(Grouping::Ragged, Weighting::Drawn, PENALTIES[1]);
        list.push(SolveCase { lambda: Lambda::Share(share), gap: 1e-8, structure, ..small(loss) });
    }
    list.push(SolveCase { lambda: Lambda::Share(0.01), ..SolveCase::new(loss, 30, 6, 2) });
    // Nothing penalised: a fit, which a well-conditioned problem has.
    let free = SolveCase { lambda: Lambda::Exactly(0.0), ..SolveCase::new(loss, 60, 4, 3) };
    list.push(free.clone());
    list.push(SolveCase { intercept: false, format: Format::F32, ..free.clone() });
    let structure = structure(Grouping::Equal(2), Weighting::AllFree, Penalty::GroupLasso);
    list.push(SolveCase { structure, lambda: Lambda::Exactly(0.5), ..free.clone() });
    // And one without a minimum, if the loss has classes.
    list.push(SolveCase { samples: 8, features: 12, ..free });
    list.push(SolveCase { lambda: Lambda::Exactly(1e6), ..small(loss) });
}

/// Bigger problems, for the longer suites.
fn larger() -> Vec<SolveCase> {
    let mut list = Vec::new();
    for loss in LOSSES {
        for (samples, features, outputs) in [(100, 300, 3), (200, 100, 10), (60, 600, 2)] {
            for design in [Design::Gaussian, Design::Correlated, Design::Layered] {
                let case = SolveCase::new(loss, samples, features, outputs);
                list.push(SolveCase { design, lambda: Lambda::Share(0.3), format: Format::F32, ..case });
            }
        }
    }
    list
}

fn refusals() -> Vec<Case> {
    let formats = |flaw: Flaw| if flaw == Flaw::TooLargeInX { &FORMATS[..1] } else { &FORMATS[..] };
    let number = |flaw: Flaw| flaw as usize;
    let both = |flaw: Flaw| {
        let formats = formats(flaw);
        [formats[0], formats[number(flaw) % formats.len()]]
    };
    let case =
        |flaw: Flaw| both(flaw).map(move |format| Case::Refuse(RefuseCase { format, flaw, seed: number(flaw) as u32 }));
    Flaw::all().flat_map(case).collect()
}

/// Any case of a column, simpler ones first: what proptest shrinks towards.
pub fn any_case(column: Column) -> BoxedStrategy<Case> {
    match column {
        Column::Prox => any_prox().prop_map(Case::Prox).boxed(),
        Column::Select => any_select().prop_map(Case::Select).boxed(),
        Column::Solve => any_solve().prop_map(Case::Solve).boxed(),
    }
}

fn any_format() -> impl Strategy<Value = Format> {
    select(FORMATS.to_vec())
}

fn any_structure() -> impl Strategy<Value = Structure> {
    let grouping = prop_oneof![
        Just(Grouping::Rows),
        Just(Grouping::One),
        (1usize..9).prop_map(Grouping::Equal),
        Just(Grouping::Ragged),
        (1usize..9).prop_map(Grouping::Lists),
        (2usize..9).prop_map(Grouping::Overlap),
    ];
    let weighting = select(vec![Weighting::SqrtSize, Weighting::Ones, Weighting::Drawn]);
    let share = || select(vec![0.0, 0.1, 0.25, 0.5, 0.9, 1.0]);
    let penalty = prop_oneof![
        Just(Penalty::GroupLasso),
        share().prop_map(|tau| Penalty::SparseGroup { tau }),
        share().prop_filter("ridge has no λ_max", |alpha| *alpha > 0.0).prop_map(|alpha| Penalty::ElasticNet { alpha }),
    ];
    (grouping, weighting, penalty).prop_map(|(grouping, weighting, penalty)| Structure { grouping, weighting, penalty })
}

fn any_prox() -> impl Strategy<Value = ProxCase> {
    let numbers = (select(vec![0.0, 0.05, 0.5, 1.0, 2.5]), select(vec![0.01, 0.3, 1.0, 4.0]));
    let data = (any_format(), select(Values::ALL.to_vec()), any::<u32>());
    (1usize..60, 1usize..7, any_structure(), numbers, data).prop_map(
        |(features, outputs, structure, (lambda, step), (format, values, seed))| ProxCase {
            format,
            features,
            outputs,
            structure,
            lambda,
            step,
            values,
            seed,
        },
    )
}

fn any_select() -> impl Strategy<Value = SelectCase> {
    let keep = prop_oneof![
        select(vec![0.001, 0.05, 0.3, 0.71, 1.0]).prop_map(Keep::Fraction),
        (1usize..80).prop_map(Keep::Features),
    ];
    let values = select(Values::ALL.to_vec()).prop_filter("no edges here", |values| *values != Values::Edge);
    (1usize..150, 1usize..9, keep, any_format(), values, any::<u32>()).prop_map(
        |(rows, outputs, keep, format, values, seed)| SelectCase { format, rows, outputs, keep, values, seed },
    )
}

fn any_solve() -> impl Strategy<Value = SolveCase> {
    let unfit = [Design::ConstantTargets, Design::Remote, Design::Subnormal];
    let designs: Vec<Design> = Design::ALL.into_iter().filter(|design| !unfit.contains(design)).collect();
    let sizes = (2usize..40, 1usize..30, 2usize..5);
    let options = (any::<bool>(), any::<bool>(), any::<bool>(), prop::option::of(select(Sampling::ALL.to_vec())));
    let task = prop_oneof![
        3 => Just(Task::Once),
        1 => Just(Task::Warm),
        1 => (1usize..5).prop_map(Task::Path),
        1 => (1usize..4).prop_map(Task::Interrupt),
        1 => Just(Task::Far),
        1 => (0usize..9).prop_map(Task::Limit),
        1 => (1usize..9).prop_map(Task::Cut),
    ];
    let goal = (select(vec![0.05, 0.15, 0.4, 0.8]), select(vec![1e-4, 1e-6, 1e-8]), select(LOSSES.to_vec()));
    let data = (any_format(), select(designs), any::<u32>());
    (sizes, any_structure(), options, task, goal, data).prop_map(
        |(sizes, structure, options, task, (share, gap, loss), (format, design, seed))| {
            let (intercept, centre, scale, sampling) = options;
            let design =
                if loss == Loss::LeastSquares && design == Design::MissingClass { Design::Gaussian } else { design };
            let case = SolveCase::new(loss, sizes.0, sizes.1, sizes.2);
            let lambda = Lambda::Share(share);
            SolveCase { format, structure, lambda, gap, intercept, centre, scale, sampling, task, design, seed, ..case }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn an_id_says_everything(case in select(Column::ALL.to_vec()).prop_flat_map(any_case)) {
            prop_assert_eq!(case.to_string().parse::<Case>(), Ok(case));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = text.parse::<Case>();
            let _ = format!("grouplasso/{text}").parse::<Case>();
        }
    }

    #[test]
    fn every_listed_case_has_an_id() {
        for case in cases(Suite::Full, 3) {
            assert_eq!(case.to_string().parse::<Case>(), Ok(case.clone()), "{case}");
        }
    }

    #[test]
    fn every_regression_is_a_case_with_a_reason() {
        let regressions = regressions().expect("case ids");
        assert!(regressions.iter().all(|(_, reason)| reason.len() > 20));
        assert_eq!(cases(Suite::Quick, 5)[0], regressions[0].0);
    }

    #[test]
    fn suites_are_the_same_every_time_and_have_no_doubles() {
        let quick = cases(Suite::Quick, 0);
        assert_eq!(quick, cases(Suite::Quick, 0));
        let ids: HashSet<String> = quick.iter().map(ToString::to_string).collect();
        assert_eq!(ids.len(), quick.len());
    }
}
