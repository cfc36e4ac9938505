//! The manual pages and completions that the packages bring are those of the command line.

use std::{fs, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;
use tidegate::cli::Arguments;

/// With `TIDEGATE_BLESS` set they are written instead: read the diff.
#[test]
fn manual_pages_and_completions_are_those_of_the_command_line() {
    let made = tempfile::tempdir().unwrap();
    let [pages, completions] = ["man", "completions"].map(|name| made.path().join(name));
    fs::create_dir(&pages).unwrap();
    fs::create_dir(&completions).unwrap();
    let mut command = Arguments::command();
    clap_mangen::generate_to(command.clone(), &pages).unwrap();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "tidegate", &completions).unwrap();
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (made, kept) in [
        (&pages, root.join("docs/man")),
        (&completions, root.join("packaging/completions")),
    ] {
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            fs::remove_dir_all(&kept).ok();
            fs::create_dir(&kept).unwrap();
            for name in names(made) {
                fs::copy(made.join(&name), kept.join(&name)).unwrap();
            }
            continue;
        }
        let again = "run it again with TIDEGATE_BLESS=1 and read the diff";
        assert_eq!(names(&kept), names(made), "{}: {again}", kept.display());
        for name in names(made) {
            let (kept, made) = (kept.join(&name), made.join(&name));
            let same = fs::read(&kept).unwrap() == fs::read(&made).unwrap();
            assert!(same, "{} is not of this command line: {again}", kept.display());
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be listed").file_name())
        .map(|name| name.into_string().expect("commands have plain names"))
        .collect();
    names.sort();
    names
}
