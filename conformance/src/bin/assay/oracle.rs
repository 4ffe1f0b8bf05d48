//! `assay oracle`.

use crate::args::{Family, OracleArgs};
use crate::output::say;
use indicatif::ProgressBar;
use std::io::IsTerminal;
use tilewright_conformance::{attention, compression, grouplasso};

pub(crate) fn answer(args: &OracleArgs) -> anyhow::Result<bool> {
    let bar = ProgressBar::new_spinner();
    let on_case = |done: usize, total: usize| {
        if std::io::stderr().is_terminal() {
            bar.set_message(format!("{done} of {total} problems"));
            bar.tick();
        }
    };
    let count = match args.family {
        Family::Attention => attention::oracle::answer(&args.input, &args.output, on_case)?,
        Family::Compression => compression::oracle::answer(&args.input, &args.output, on_case)?,
        Family::Grouplasso => grouplasso::oracle::answer(&args.input, &args.output, on_case)?,
    };
    bar.finish_and_clear();
    say(&format!("{count} problems answered in {}\n", args.output.display()))?;
    Ok(true)
}
