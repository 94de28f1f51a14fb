//! The workshop: one command for each thing that is done to Gate rather than with it.

mod bench;
mod dist;
mod fuzz;
mod machine;
mod mutants;
mod python;
mod soak;
mod step;
mod test;
mod tidy;
mod trial;

use std::process::ExitCode;

use step::Failure;

const USAGE: &str = "\
cargo xtask try [DIR] [--yes]      mount a gated view of DIR and watch two writers take turns
cargo xtask test [--yes] [NAME…]   install what the tests need, then lint and test everything;
                                   with NAMEs only the tests that match
cargo xtask soak [MINUTES|NAME]    the long tier: more crashes, more seeds, fuzzing, mutants
cargo xtask tidy                   check layout, layering, licences and docs
cargo xtask bench [NAME]           measure a view beside the bare directory and other file
                                   systems, turns beside flock and etcd, a broker under load,
                                   and a daemon with mounts; `view ROW…` for some rows of the
                                   view, `profile ROW` for where its time goes;
                                   [--on ext4|tmpfs|DIR] [--files N] [--json FILE]
cargo xtask dist [--binary FILE]   pack a release, or FILE: the program, an archive, a Debian package
                 [--out DIR]       and their sums, into dist/ or DIR

--yes installs and changes what is needed without asking, as does CI=true";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<(), Failure> {
    let yes = words.iter().any(|word| word == "--yes") || std::env::var_os("CI").is_some();
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|w| *w != "--yes").collect();
    let callers_dir = std::env::current_dir().unwrap_or_default();
    std::env::set_current_dir(machine::repository()?)
        .map_err(|error| Failure::new("cannot enter the repository", error))?;
    if words.iter().any(|word| ["--help", "-h"].contains(word)) {
        println!("{USAGE}");
        return Ok(());
    }
    if !matches!(words.first(), Some(&"bench" | &"dist"))
        && let Some(flag) = words.iter().find(|word| word.starts_with('-'))
    {
        return Err(usage(&format!("{flag} is no option")));
    }
    match words.split_first() {
        Some((&"try", [])) => trial::run(None, yes),
        Some((&"try", [dir])) => trial::run(Some(&callers_dir.join(dir)), yes),
        Some((&"test", names)) => test::run(names, yes),
        Some((&"soak", [])) => soak::run(None, yes),
        Some((&"soak", [what])) => soak::run(Some(what), yes),
        Some((&"tidy", [])) => tidy::run(),
        Some((&"dist", words)) => dist::run(words, &callers_dir),
        Some((&"bench", words)) => bench::run(words, &callers_dir, yes),
        Some((verb, _)) => Err(usage(&format!("`{verb}` is no command"))),
        None => Err(usage("a command is missing")),
    }
}

fn usage(cause: &str) -> Failure {
    Failure {
        error: "cannot tell what to do".into(),
        cause: cause.into(),
        hint: format!("\n{USAGE}"),
    }
}
