//! The client for Python: its types hold, it installs, and what was installed passes its tests.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine;
use crate::step::{self, Failure};

const CLIENT: &str = "clients/python";
/// The checker of types, what builds the package, what asks a daemon by its OpenAPI document, what drives
/// a browser, and what judges a page for those who do not see it: pinned, so that nothing fails unprovoked.
const FROM_PYPI: [&str; 5] = [
    "mypy==2.4.1",
    "flit_core==4.2.0",
    "schemathesis==4.32.5",
    "playwright==1.65.2",
    "axe-playwright-python==0.1.8",
];

/// What tests call of it.
const CALLED: [&str; 1] = ["schemathesis"];

/// Checks the client in a Python of its own under target/tools.
pub fn check() -> Result<(), Failure> {
    let home = bring()?;
    let cache = machine::target().join("mypy");
    let config = format!("{CLIENT}/pyproject.toml");
    let src = format!("{CLIENT}/src");
    let mut mypy = Command::new(home.join("bin/mypy"));
    mypy.args(["--no-error-summary", "--config-file", &config, "--cache-dir"]).arg(cache);
    mypy.env("MYPYPATH", &src);
    step::run(mypy.args([&src, &format!("{CLIENT}/tests"), &format!("{CLIENT}/examples")]))?;
    let pip = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall"];
    step::run(Command::new(home.join("bin/pip")).args(pip).arg(format!("./{CLIENT}")))?;
    let tests = ["-B", "-m", "unittest", "discover", "--quiet", "--start-directory"];
    step::run(Command::new(home.join("bin/python")).args(tests).arg(format!("{CLIENT}/tests")))
}

/// Brings the Python that the tests need, and what they call of it to the other tools.
pub fn bring() -> Result<PathBuf, Failure> {
    let home = machine::target().join("tools/python");
    let stamp = home.join("brought");
    let wanted = FROM_PYPI.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|brought| brought == wanted) {
        return Ok(home);
    }
    step::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    step::run(Command::new(home.join("bin/pip")).args(["install", "--quiet"]).args(FROM_PYPI))?;
    lay_links(&home)
        .and_then(|()| std::fs::write(&stamp, wanted))
        .map_err(|error| Failure::new("cannot write to target/tools", error))?;
    Ok(home)
}

fn lay_links(home: &Path) -> io::Result<()> {
    let bin = machine::target().join("tools/bin");
    std::fs::create_dir_all(&bin)?;
    for tool in CALLED {
        let link = bin.join(tool);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        symlink(home.canonicalize()?.join("bin").join(tool), link)?;
    }
    Ok(())
}
