//! `assay list`.

use crate::args::{Family, ListArgs};
use crate::output::say;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Display;
use tilewright_conformance::{attention, compression, grouplasso};

/// Cases listed at a time.
const CHUNK: usize = 32;

pub(crate) fn list(args: &ListArgs) -> anyhow::Result<bool> {
    match args.family {
        Family::Attention => {
            use attention::{suite, trial::Prepared};
            lines(&suite::cases(args.suite.into(), args.seed), |case| {
                let prepared = Prepared::new(case, &tilewright_attention::Contract::strict(case.format), true)?;
                Ok(prepared.evidence.iter().map(|evidence| evidence.decoy).collect())
            })
        }
        Family::Compression => {
            use compression::{suite, trial::Prepared};
            lines(&suite::cases(args.suite.into(), args.seed), |case| {
                Ok(Prepared::new(case)?.evidence.iter().map(|evidence| evidence.decoy).collect())
            })
        }
        Family::Grouplasso => {
            use grouplasso::{suite, trial::Prepared};
            lines(&suite::cases(args.suite.into(), args.seed), |case| {
                Ok(Prepared::new(case)?.evidence.iter().map(|evidence| evidence.decoy).collect())
            })
        }
    }
}

/// Each case with the decoys it rejects.
fn lines<C: Display + Sync>(
    cases: &[C],
    rejects: impl Fn(&C) -> Result<BTreeSet<&'static str>, String> + Sync,
) -> anyhow::Result<bool> {
    for chunk in cases.chunks(CHUNK) {
        let lines: Vec<String> = chunk
            .par_iter()
            .map(|case| {
                let aims: Vec<&str> = rejects(case)?.into_iter().collect();
                let aims = if aims.is_empty() { "nothing".into() } else { aims.join("; ") };
                Ok(format!("{case}\n    rejects: {aims}\n"))
            })
            .collect::<Result<_, String>>()
            .map_err(anyhow::Error::msg)?;
        say(&lines.concat())?;
    }
    Ok(true)
}
