//! `assay mutants`.

use crate::args::{Family, MutantsArgs, SuiteName};
use crate::output::{JsonReport, conclude, progress};
use anyhow::Error;
use std::fmt::Write as _;
use tilewright_conformance::kill::{Caught, KillMatrix};
use tilewright_conformance::{Suite, attention, compression, grouplasso};

pub(crate) fn mutants(args: &MutantsArgs) -> anyhow::Result<bool> {
    let json = args.json.as_deref().map(JsonReport::create).transpose()?;
    let caught = if args.once { Caught::AreSpared } else { Caught::GoOn };
    let (matrix, quick_killed) = match args.family {
        Family::Attention => {
            use attention::suite::cases;
            let suite = |suite: Suite| cases(suite, args.seed);
            in_two_rounds(
                args.suite,
                suite(Suite::Quick),
                || suite(args.suite.into()),
                |survivors, cases, tick| {
                    let all = tilewright_mutants::attention::mutants().iter();
                    let mutants: Vec<_> = all.filter(|m| survivors.is_none_or(|ids| ids.contains(&m.id))).collect();
                    attention::kill::kill_matrix(
                        &mutants,
                        tilewright_mutants::attention::variants(),
                        cases,
                        caught,
                        tick,
                    )
                },
            )?
        }
        Family::Compression => {
            use compression::suite::cases;
            let suite = |suite: Suite| cases(suite, args.seed);
            in_two_rounds(
                args.suite,
                suite(Suite::Quick),
                || suite(args.suite.into()),
                |survivors, cases, tick| {
                    let all = tilewright_mutants::compression::mutants().iter();
                    let mutants: Vec<_> = all.filter(|m| survivors.is_none_or(|ids| ids.contains(&m.id))).collect();
                    compression::kill::kill_matrix(
                        &mutants,
                        tilewright_mutants::compression::variants(),
                        cases,
                        caught,
                        tick,
                    )
                },
            )?
        }
        Family::Grouplasso => {
            use grouplasso::suite::cases;
            let suite = |suite: Suite| cases(suite, args.seed);
            in_two_rounds(
                args.suite,
                suite(Suite::Quick),
                || suite(args.suite.into()),
                |survivors, cases, tick| {
                    let all = tilewright_mutants::grouplasso::mutants().iter();
                    let mutants: Vec<_> = all.filter(|m| survivors.is_none_or(|ids| ids.contains(&m.id))).collect();
                    grouplasso::kill::kill_matrix(&mutants, tilewright_mutants::grouplasso::variants(), cases, tick)
                },
            )?
        }
    };
    if let Some(json) = json {
        let mut value = matrix.to_json();
        value["mutants"]["killed_by_quick"] = quick_killed.into();
        json.write(&value)?;
    }
    let total = matrix.mutants.len();
    let quick_holds = quick_killed * 100 >= total * 95;
    let full_holds = args.suite == SuiteName::Quick || matrix.killed() == total;
    let holds = total > 0 && quick_holds && full_holds && matrix.false_rejects() == 0;
    conclude(&matrix_text(&matrix, quick_killed, args.suite), holds)
}

/// The quick suite for all; then, if more was asked for, the other suite's other cases for the variants and for what
/// survived. Also the number of bugs that the quick suite killed.
fn in_two_rounds<C: PartialEq>(
    suite: SuiteName,
    quick: Vec<C>,
    longer: impl Fn() -> Vec<C>,
    matrix_of: impl Fn(Option<&[u16]>, &[C], &(dyn Fn() + Sync)) -> Result<KillMatrix, String>,
) -> anyhow::Result<(KillMatrix, usize)> {
    let bar = progress(quick.len(), "quick suite");
    let mut matrix = matrix_of(None, &quick, &|| bar.inc(1)).map_err(Error::msg)?;
    bar.finish_and_clear();
    let quick_killed = matrix.killed();
    if suite != SuiteName::Quick {
        let rest: Vec<C> = longer().into_iter().filter(|case| !quick.contains(case)).collect();
        let bar = progress(rest.len(), "longer suite");
        matrix.extend(matrix_of(Some(&matrix.survivors()), &rest, &|| bar.inc(1)).map_err(Error::msg)?);
        bar.finish_and_clear();
    }
    Ok((matrix, quick_killed))
}

fn matrix_text(matrix: &KillMatrix, quick_killed: usize, suite: SuiteName) -> String {
    let mut text = matrix.to_text();
    let total = matrix.mutants.len();
    let _ = writeln!(text, "quick suite: {quick_killed} of {total} planted bugs killed");
    if suite != SuiteName::Quick {
        let _ = writeln!(text, "with the full suite: {} of {total}", matrix.killed());
    }
    let (rejected, controls, elements) = (matrix.false_rejects(), matrix.controls.len(), matrix.control_elements());
    let _ = writeln!(text, "false rejects: {rejected} of {controls} correct variants, {elements} elements judged");
    text
}
