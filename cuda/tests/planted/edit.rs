//! An edit of one instruction of one kernel, as the text of the PTX has it.

use serde::Deserialize;
use std::ffi::CString;
use std::path::Path;

/// Which line of a kernel, and what becomes of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Edit {
    /// The line, single-spaced; each `*` stands for any text.
    pub line: String,
    /// The how-manieth of such lines it is, from 1, and how many there are: a kernel that was compiled anew is looked at
    /// anew.
    pub nth: (usize, usize),
    /// What it becomes; `{1}` is what the first `*` stood for.
    pub into: String,
}

/// A unit's PTX before and after.
pub(crate) struct Edited {
    pub before: CString,
    pub after: CString,
}

/// The unit with this kernel, with the edit applied.
pub(crate) fn apply(kernel: &str, edit: &Edit) -> Result<Edited, String> {
    let before = unit_of(kernel)?;
    let head = format!(".entry {kernel}(");
    let start = before.find(&head).ok_or("the kernel is gone")? + head.len();
    let end = before[start..].find(".entry ").map_or(before.len(), |n| start + n);
    let found: Vec<(&str, Vec<String>)> = before[start..end]
        .lines()
        .filter_map(|line| Some((line, captures(&edit.line, &line.split_whitespace().collect::<Vec<_>>().join(" "))?)))
        .collect();
    let (nth, of) = edit.nth;
    if found.len() != of {
        return Err(format!("{kernel} has {} lines like {:?}, expected {of}", found.len(), edit.line));
    }
    let (line, parts) = &found[nth - 1];
    let mut into = edit.into.clone();
    for (n, part) in parts.iter().enumerate() {
        into = into.replace(&format!("{{{}}}", n + 1), part);
    }
    // Lines are slices of the text: that is where they are.
    let at = line.as_ptr() as usize - before.as_ptr() as usize;
    let after = format!("{}{into}{}", &before[..at], &before[at + line.len()..]);
    let text = |text: String| CString::new(text).map_err(|error| error.to_string());
    Ok(Edited { before: text(before)?, after: text(after)? })
}

/// The text of the unit that has this kernel.
fn unit_of(kernel: &str) -> Result<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx");
    let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let head = format!(".entry {kernel}(");
    let texts = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    texts.into_iter().find(|text| text.contains(&head)).ok_or_else(|| format!("no unit has {kernel}"))
}

/// What each `*` of the pattern stands for, as short as can be; `None` if the line is another one.
fn captures(pattern: &str, line: &str) -> Option<Vec<String>> {
    let Some((fixed, rest)) = pattern.split_once('*') else { return (pattern == line).then(Vec::new) };
    let line = line.strip_prefix(fixed)?;
    let lengths = line.char_indices().map(|(n, _)| n).chain([line.len()]);
    lengths.into_iter().find_map(|n| {
        let mut parts = captures(rest, &line[n..])?;
        parts.insert(0, line[..n].to_owned());
        Some(parts)
    })
}

#[test]
fn patterns_are_matched() {
    let found = |pattern, line| captures(pattern, line).map(|parts| parts.join("|"));
    assert_eq!(found("add.s32 *, *, 1;", "add.s32 %r1, %r2, 1;").as_deref(), Some("%r1|%r2"));
    assert_eq!(found("add.s32 *, *, 1;", "add.s32 %r1, %r2, 2;"), None);
    assert_eq!(found("bar.sync 0;", "bar.sync 0;").as_deref(), Some(""));
    let edit = Edit { line: "bar.sync 0;".into(), nth: (1, 3), into: String::new() };
    assert!(apply("compression_stage_2", &edit).err().is_some_and(|error| error.contains("2 lines")));
    assert!(apply("compression_nothing", &edit).is_err());
}
