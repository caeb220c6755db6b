//! The command line as its users see it: docs/cli.md is what the help texts say, and what cannot be parsed exits with 2.

mod common;

use std::path::Path;

use common::Exits;

use tidegate_testkit::Tidegate;

/// Every command that has a help text, in the order of the page.
const COMMANDS: [&[&str]; 15] = [
    &[],
    &["publish"],
    &["consume"],
    &["balance"],
    &["verify"],
    &["job"],
    &["job", "list"],
    &["job", "show"],
    &["job", "forget"],
    &["schema"],
    &["schema", "infer"],
    &["schema", "check"],
    &["schema", "register"],
    &["schema", "show"],
    &["broker"],
];

fn tidegate() -> Tidegate {
    Tidegate::new(env!("CARGO_BIN_EXE_tidegate"))
}

/// `TIDEGATE_BLESS=1` rewrites the page.
#[test]
fn the_page_is_what_the_help_texts_say() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let mut expected = String::from(
        "# The command line\n\n\
         Made from `tidegate --help`; `TIDEGATE_BLESS=1 cargo test -p tidegate --test cli` writes it anew.\n",
    );
    for command in COMMANDS {
        let help = tidegate().args(command).arg("--help").exits(0).stdout;
        let name = [&["tidegate"], command].concat().join(" ");
        let help: String = help
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        expected.push_str(&format!(
            "\n## {name}\n\n```text\n{}\n```\n",
            help.trim_end()
        ));
    }
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&page, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == expected,
        "docs/cli.md is not what --help says: TIDEGATE_BLESS=1 writes it anew"
    );
}

#[test]
fn what_cannot_be_parsed_exits_with_2() {
    for wrong in [
        &["publish"][..],
        &["publish", "a.csv"],
        &["publish", "a.csv", "-t", "t", "--connect-timeout", "30"],
        &["publish", "a.csv", "-t", "t", "--no-such-flag"],
        &["nothing"],
    ] {
        let finished = tidegate().args(wrong).exits(2);
        assert!(finished.stdout.is_empty(), "{finished}");
        assert!(finished.stderr.contains("error:"), "{finished}");
    }
}

#[test]
fn programs_get_json_even_for_what_cannot_be_parsed() {
    let finished = tidegate()
        .args(["publish", "-o", "json", "--no-such-flag"])
        .exits(2);
    let json = finished.json();
    assert_eq!(json["exit_code"], 2);
    assert_eq!(json["error"]["kind"], "usage");
    assert!(
        json["error"]["message"]
            .as_str()
            .unwrap()
            .contains("--no-such-flag"),
        "{finished}"
    );
}

#[test]
fn help_shows_no_value_of_the_environment() {
    let help = tidegate()
        .args(["publish", "--help"])
        .env("SCHEMA_REGISTRY_URL", "http://user:hunter2@registry")
        .env("KAFKA_BOOTSTRAP_SERVERS", "secret-host:9092")
        .exits(0);
    assert!(
        !help.stdout.contains("hunter2") && !help.stdout.contains("secret-host"),
        "{help}"
    );
}
