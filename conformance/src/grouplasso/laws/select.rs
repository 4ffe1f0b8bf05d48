//! Scores and selections.

use super::AGAIN;
use crate::grouplasso::hearing::{Ended, Hearing};
use crate::grouplasso::judge::{Kind, Violation, judge_scores, judge_selection};
use crate::grouplasso::trial::{Exhibit, ReadySelect};
use tilewright_grouplasso::Keep;

/// The answers and their laws.
pub(crate) fn examine(hearing: &mut Hearing<'_>, ready: &ReadySelect) -> Result<(), Ended> {
    let ReadySelect { w, scores, keep } = ready;
    let format = hearing.prepared.case.format();
    let own = hearing.scores(w.view(), None, "scores")?;
    let judged = judge_scores(format, w.view(), &own, "scores");
    hearing.error = hearing.keep(judged, || Exhibit::Scores(own.clone()))?;
    let mut lists = vec![scores.clone()];
    if own.iter().all(|s| !s.is_nan()) {
        lists.push(own.clone());
    }
    for scores in lists {
        let kept = hearing.select(&scores, *keep, None, "selection")?;
        let judged = judge_selection(&scores, *keep, &kept, "selection");
        hearing.keep(judged, || Exhibit::Selection(kept.clone()))?;
    }
    if hearing.is_deterministic() {
        again(hearing, ready, &own)?;
    }
    nesting(hearing, ready)?;
    permutation(hearing, ready)
}

fn again(hearing: &mut Hearing<'_>, ready: &ReadySelect, own: &[f64]) -> Result<(), Ended> {
    for (threads, place) in AGAIN {
        let again = hearing.scores(ready.w.view(), threads, place)?;
        let same = again.iter().zip(own).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
        if !same {
            let kind = if threads.is_some() { Kind::Threads } else { Kind::Nondeterministic };
            return Err(Violation::new(kind, place, "other scores").into());
        }
        let kept = hearing.select(&ready.scores, ready.keep, threads, place)?;
        judge_selection(&ready.scores, ready.keep, &kept, place)?;
    }
    Ok(())
}

/// The best `k` are among the best `k + 1`.
fn nesting(hearing: &mut Hearing<'_>, ready: &ReadySelect) -> Result<(), Ended> {
    let kept = ready.keep.of(ready.scores.len());
    let few = hearing.select(&ready.scores, Keep::Features(kept), None, "law, as a number")?;
    let more = hearing.select(&ready.scores, Keep::Features(kept + 1), None, "law, one more")?;
    match few.iter().find(|row| !more.contains(row)) {
        Some(row) => {
            let detail = format!("row {row} is among the best {kept}, and not among one more");
            Err(Violation::new(Kind::Nesting, "law", detail).into())
        }
        None => Ok(()),
    }
}

/// The other way round, each row that has a score of its own is kept or not as before.
fn permutation(hearing: &mut Hearing<'_>, ready: &ReadySelect) -> Result<(), Ended> {
    let scores = &ready.scores;
    let there = hearing.select(scores, ready.keep, None, "law, forwards")?;
    let reversed: Vec<f64> = scores.iter().rev().copied().collect();
    let back = hearing.select(&reversed, ready.keep, None, "law, backwards")?;
    let alone = |row: usize| scores.iter().filter(|s| **s == scores[row]).count() == 1;
    let stray = (0..scores.len()).find(|&row| {
        let mirrored = scores.len() - 1 - row;
        alone(row) && there.contains(&row) != back.contains(&mirrored)
    });
    match stray {
        Some(row) => {
            let detail = format!("row {row} is kept in one order and not in the other");
            Err(Violation::new(Kind::Permutation, "law", detail).into())
        }
        None => Ok(()),
    }
}
