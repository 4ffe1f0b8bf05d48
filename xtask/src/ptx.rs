//! `cargo xtask ptx`.

use crate::digest::Digest;
use crate::nvrtc::Nvrtc;
use crate::record::{Record, Usage, usage};
use crate::source::{REAL, Source, VERSION, VIRTUAL};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What to do with the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Compile those that are not what their sources give, and write.
    Write,
    /// Compile all and compare.
    Check,
    /// Compare digests: nothing is compiled.
    Digest,
}

/// Which units.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// Those whose names begin so.
    Beginning(&'a str),
    /// The one of this name, in this process.
    One(&'a str),
}

/// Does it, and says what is wrong.
pub(crate) fn run(task: Task, which: Which<'_>) -> Result<()> {
    let cuda = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cuda");
    let mut sources = Source::all(&cuda)?;
    sources.retain(|source| match which {
        Which::Beginning(start) => source.name.starts_with(start),
        Which::One(name) => source.name == name,
    });
    ensure!(!sources.is_empty(), "no file of cuda/kernels is meant by {which:?}");
    let unit = |source: &Source| Unit::new(&cuda, &source.name);
    match (task, which) {
        (Task::Digest, _) => {
            let wrong: Vec<String> = sources.iter().flat_map(|source| unit(source).stale(source)).collect();
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            println!("{} units are what their sources give", sources.len());
            Ok(())
        }
        (_, Which::One(_)) => sources.iter().try_for_each(|source| unit(source).make(source, task)),
        (_, Which::Beginning(_)) => {
            sources.retain(|source| task == Task::Check || !unit(source).stale(source).is_empty());
            at_once(&sources, task)
        }
    }
}

/// Each in a process of its own, as many at once as there are processors: the compiler works on one thing at a time.
fn at_once(sources: &[Source], task: Task) -> Result<()> {
    let this = std::env::current_exe().context("the name of this program")?;
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(source) = sources.get(next.fetch_add(1, Relaxed)) {
            let mut command = Command::new(&this);
            command.args(["ptx", "--one", "--only", &source.name]);
            if task == Task::Check {
                command.arg("--check");
            }
            let good = command.status().is_ok_and(|status| status.success());
            if !good && let Ok(mut failed) = failed.lock() {
                failed.push(source.name.clone());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap_or_default();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The files of a unit.
struct Unit {
    name: String,
    ptx: PathBuf,
    record: PathBuf,
}

impl Unit {
    fn new(cuda: &Path, name: &str) -> Self {
        let file = |ending: &str| cuda.join("ptx").join(format!("{name}.{ending}"));
        Self { name: name.to_owned(), ptx: file("ptx"), record: file("record") }
    }

    /// What the record says against the committed PTX, as far as one can tell without compiling.
    fn stale(&self, source: &Source) -> Vec<String> {
        let name = &self.name;
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let Some(record) = Record::parse(&read(&self.record)) else {
            return vec![format!("{name}: there is no record; run `cargo xtask ptx`")];
        };
        let mut wrong = Vec::new();
        if record.inputs != source.digest().to_string() {
            wrong.push(format!("{name}: the source changed after the PTX was made; run `cargo xtask ptx`"));
        }
        if record.ptx != Digest::of(&read(&self.ptx)).to_string() {
            wrong.push(format!("{name}: the PTX is not the one that was made; run `cargo xtask ptx`"));
        }
        wrong.extend(objections(source, &record.usages));
        let kernels = read(&self.ptx).matches(".entry ").count();
        if record.usages.len() != kernels * REAL.len() {
            wrong.push(format!("{name}: the record has not all of its {kernels} kernels"));
        }
        wrong
    }

    /// Compiles and assembles; then writes, or compares.
    fn make(&self, source: &Source, task: Task) -> Result<()> {
        let nvrtc = Nvrtc::open()?;
        let (got, wanted) = (nvrtc.version, VERSION);
        ensure!(got == wanted, "NVRTC: got {}.{}, expected {}.{}", got.0, got.1, wanted.0, wanted.1);
        let ptx = source.compile(&nvrtc, VIRTUAL)?.0;
        let mut usages = Vec::new();
        for target in REAL {
            let (_, log) = source.compile(&nvrtc, target)?;
            let kernels = usage(&log);
            ensure!(!kernels.is_empty(), "{}: the assembler says nothing about any kernel\n{log}", self.name);
            usages.extend(kernels.into_iter().map(|kernel| (target.to_owned(), kernel)));
        }
        let mut wrong = objections(source, &usages);
        let record = Record::new(source.digest(), &ptx, usages).to_text();
        let files = [(&self.ptx, ptx), (&self.record, record)];
        for (path, text) in &files {
            match task {
                Task::Write => fs::write(path, text).with_context(|| format!("writing {}", path.display()))?,
                _ if fs::read_to_string(path).ok().as_ref() == Some(text) => {}
                _ => wrong.push(format!("{} is not what the source gives; run `cargo xtask ptx`", path.display())),
            }
        }
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\n"));
        }
        println!("{}", self.name);
        Ok(())
    }
}

/// What is wrong with the needs of a unit's kernels.
fn objections(source: &Source, usages: &[(String, Usage)]) -> Vec<String> {
    let one = |(target, kernel): &(String, Usage)| {
        source.objection(kernel).map(|objection| format!("{}, {target}: {objection}", source.name))
    };
    usages.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_up_to_date() {
        run(Task::Digest, Which::Beginning("")).expect("every unit");
    }

    #[test]
    fn every_way_to_be_stale_is_seen() {
        let folder = std::env::temp_dir().join(format!("tilewright-xtask-{}", std::process::id()));
        fs::create_dir_all(folder.join("ptx")).expect("a folder");
        let source = |text: &str| Source::new("x.cu", text.into(), &[]).expect("valid");
        let (made, changed) = (source("//! registers 20\nint x;\n"), source("//! registers 20\nint y;\n"));
        let unit = Unit::new(&folder, "x");
        let record = |ptx: &str, registers, targets: &[&str]| {
            let usage = |target: &&str| ((*target).to_owned(), Usage { name: "k".into(), registers, spilt: 0 });
            Record::new(made.digest(), ptx, targets.iter().map(usage).collect()).to_text()
        };
        let stale = |source: &Source, ptx: &str, record: &str| {
            fs::write(&unit.ptx, ptx).expect("a file");
            fs::write(&unit.record, record).expect("a file");
            unit.stale(source).join("\n")
        };
        let ptx = ".visible .entry k()";
        let good = record(ptx, 20, &REAL);
        assert_eq!(stale(&made, ptx, &good), "");
        assert!(stale(&changed, ptx, &good).contains("the source changed"));
        assert!(stale(&made, ".visible .entry k( )", &good).contains("not the one that was made"));
        assert!(stale(&made, ptx, &record(ptx, 21, &REAL)).contains("needs 21 registers"));
        assert!(stale(&made, ptx, &record(ptx, 20, &REAL[..1])).contains("not all of its 1 kernels"));
        assert!(stale(&made, ptx, "").contains("no record"));
        fs::remove_dir_all(&folder).expect("the folder goes");
    }
}
