//! `cargo xtask mutants`: each line of `tests/mutants/*.txt` breaks one rule of the library and names the test that
//! must fail.
//!
//! A line is `path | exact old text | new text | package | test`, where `\|` stands for a bar in a text. Blanks count
//! as text, except the single blank beside a bar. Comments begin with `#`. Mutations change a copy of the workspace in
//! the target directory.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use testkit::Table;
use xshell::{Shell, cmd};

use crate::progress::{Progress, seconds};
use crate::{binaries, command, paths};

/// A mutation, and the test that must fail.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mutant {
    path: String,
    old: String,
    new: String,
    package: String,
    test: String,
}

impl Mutant {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<String> =
            line.split(" | ").map(|field| field.replace("\\|", "|")).collect();
        let [path, old, new, package, test] = fields
            .try_into()
            .map_err(|_| anyhow!("expected `path | old | new | package | test`, not `{line}`"))?;
        ensure!(old != new && !test.is_empty(), "`{line}` changes nothing or names no test");
        Ok(Self { path, old, new, package, test })
    }

    /// Returns the text with the mutation.
    fn apply(&self, text: &str) -> Result<String> {
        let found = text.matches(&self.old).count();
        ensure!(found == 1, "{} contains `{}` {found} times instead of once", self.path, self.old);
        Ok(text.replacen(&self.old, &self.new, 1))
    }
}

/// The outcome of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Caught,
    Missed,
    /// The line is wrong: the mutant does not compile, or the test does not exist.
    Broken,
}

/// Reads all mutants. Fails if a file does not contain the old text exactly once.
fn all() -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    let dir = testkit::build::workspace().join("tests/mutants");
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        for (at, line) in fs::read_to_string(&path)?.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let at = || format!("{}:{}", path.display(), at + 1);
            let mutant = Mutant::parse(line).with_context(at)?;
            let source = fs::read_to_string(testkit::build::workspace().join(&mutant.path))
                .with_context(at)?;
            mutant.apply(&source).with_context(at)?;
            mutants.push(mutant);
        }
    }
    Ok(mutants)
}

/// Tests all mutants, or `sample` random ones, and prints a table. Returns true if every mutant was caught.
pub(crate) fn run(sample: Option<usize>, filters: &[String]) -> Result<bool> {
    let mut mutants = all()?;
    mutants.retain(|mutant| {
        filters.is_empty()
            || filters.iter().any(|filter| format!("{mutant:?}").contains(filter.as_str()))
    });
    if let Some(count) = sample {
        mutants
            .sort_by_cached_key(|mutant| std::hash::BuildHasher::hash_one(&*RANDOM, &mutant.old));
        mutants.truncate(count);
    }
    let copy = testkit::build::target()?.join("mutants");
    copy_sources(&copy)?;
    let mut table = Table::new(["mutant", "test", "result", "time"]);
    let mut all_caught = true;
    let mut progress = Progress::begin("mutants");
    let count = mutants.len();
    for (n, mutant) in mutants.into_iter().enumerate() {
        progress.detail(format!("{}/{count} {}: {}", n + 1, mutant.path, mutant.old));
        let (outcome, time) = play(&mutant, &copy, &mut progress)?;
        all_caught &= outcome == Outcome::Caught;
        table.row([
            format!("{}: {} -> {}", mutant.path, mutant.old, mutant.new),
            mutant.test,
            format!("{outcome:?}"),
            seconds(time),
        ]);
    }
    progress.end(if all_caught { "ok" } else { "FAILED" });
    print!("{table}");
    Ok(all_caught)
}

static RANDOM: std::sync::LazyLock<std::hash::RandomState> =
    std::sync::LazyLock::new(Default::default);

/// Copies the files of the checkout, committed or not. The copy keeps times, so that cargo rebuilds only changed files.
fn copy_sources(copy: &Path) -> Result<()> {
    fs::create_dir_all(copy)?;
    for entry in fs::read_dir(copy)? {
        let path = entry?.path();
        match path.is_dir() {
            true if path.ends_with("target") => {}
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    let sh = Shell::new()?;
    sh.change_dir(testkit::build::workspace());
    let files = cmd!(sh, "git ls-files -z --cached --others --exclude-standard").quiet().read()?;
    // git also lists a deleted file before the commit.
    let existing = files.split_terminator('\0').filter(|file| sh.path_exists(file));
    Ok(cmd!(sh, "cp --preserve=timestamps --parents --target-directory {copy} {existing...}")
        .quiet()
        .run()?)
}

/// Mutates the copy, runs the test and restores the copy.
fn play(mutant: &Mutant, copy: &Path, progress: &mut Progress) -> Result<(Outcome, Duration)> {
    let begun = Instant::now();
    let path = copy.join(&mutant.path);
    let text = fs::read_to_string(&path)?;
    fs::write(&path, mutant.apply(&text)?)?;
    let outcome = test(mutant, copy, progress);
    fs::write(&path, &text)?;
    Ok((outcome?, begun.elapsed()))
}

fn test(mutant: &Mutant, copy: &Path, progress: &mut Progress) -> Result<Outcome> {
    let Mutant { package, test, .. } = mutant;
    let cargo = |run: &[&str]| {
        let mut cargo = Command::new(binaries::cargo());
        cargo
            .current_dir(copy)
            .args(["test", "--quiet", "--all-features", "--package", package])
            .args(run);
        cargo.env("CARGO_TARGET_DIR", copy.join("target"));
        cargo
    };
    let log = paths::log("mutants")?;
    if !command::run(cargo(&["--no-run"]), &log, progress, |_| None)?.status.success() {
        return Ok(Outcome::Broken);
    }
    let run = cargo(&["--", "--include-ignored", test]);
    let finished = command::run(run, &log, progress, |_| None)?;
    let ran = finished
        .output
        .lines()
        .any(|line| line.starts_with("running ") && !line.starts_with("running 0 "));
    Ok(match (ran, finished.status.success()) {
        (false, _) => Outcome::Broken,
        (true, false) => Outcome::Caught,
        (true, true) => Outcome::Missed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parsed() {
        let mutant = Mutant::parse(r"a/b.rs | \| A | \| B | jail-fs | row_04").unwrap();
        assert_eq!(mutant.test, "row_04");
        assert_eq!(mutant.apply("O | A").unwrap(), "O | B");
        assert!(Mutant::parse("a/b.rs | x < 1 | x < 1 | jail-fs | row").is_err());
        assert!(Mutant::parse("a/b.rs | x < 1").is_err());
    }

    #[test]
    fn every_mutant_applies() {
        assert!(!all().unwrap().is_empty());
    }

    #[test]
    fn old_text_is_unique() {
        let mutant = Mutant::parse("a | x | y | p | t").unwrap();
        assert!(mutant.apply("x x").is_err());
        assert!(mutant.apply("z").is_err());
    }
}
