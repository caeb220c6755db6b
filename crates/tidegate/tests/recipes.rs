//! Every recipe of docs/recipes.md, run as it stands there: its files, its commands, and the first record it promises.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::{Exits, Folder, tidegate};
use serde_json::Value;

/// A recipe of the page.
struct Recipe {
    title: String,
    /// Names and contents.
    files: Vec<(String, String)>,
    commands: Vec<String>,
    /// The first line that the last `consume` prints, where the recipe shows one.
    record: Option<Value>,
}

fn recipes() -> Vec<Recipe> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes.md");
    let page = std::fs::read_to_string(page).unwrap();
    page.split("\n## ").skip(1).map(recipe).collect()
}

fn recipe(section: &str) -> Recipe {
    let mut lines = section.lines();
    let mut found = Recipe {
        title: lines.next().unwrap().to_owned(),
        files: Vec::new(),
        commands: Vec::new(),
        record: None,
    };
    let mut before = "";
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else {
            before = line;
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let name = before
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'));
        match (kind, name) {
            ("console", _) => {
                let commands = block
                    .iter()
                    .map(|line| line.strip_prefix("$ ").unwrap().to_owned());
                found.commands.extend(commands);
            }
            (_, Some(name)) => found.files.push((name.to_owned(), block.join("\n") + "\n")),
            ("json", None) => found.record = Some(serde_json::from_str(block[0]).unwrap()),
            other => panic!("{other:?} in {}", found.title),
        }
        before = "";
    }
    found
}

/// The words of a command line: blanks part them, but inside single quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (number, part) in command.split('\'').enumerate() {
        if number % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        for (number, word) in part.split(' ').enumerate() {
            if number > 0 {
                words.push(String::new());
            }
            words.last_mut().unwrap().push_str(word);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn each_recipe_does_what_it_says() {
    let all = recipes();
    assert!(all.len() >= 10, "{} recipes", all.len());
    for recipe in all {
        let folder = Folder::new();
        for (name, content) in &recipe.files {
            folder.file(name, content);
        }
        let here = std::fs::canonicalize(folder.path(".")).unwrap();
        let mut printed = String::new();
        for command in &recipe.commands {
            let command = command.replace("$PWD", here.to_str().unwrap());
            let words = words(&command);
            assert_eq!(words[0], "tidegate", "{}", recipe.title);
            let run = tidegate([]).args(&words[1..]).dir(&here);
            let finished = run.exits(0);
            if words[1] == "consume" {
                printed = finished.stdout;
            }
        }
        if let Some(record) = recipe.record {
            let first: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
            assert_eq!(first, record, "{}", recipe.title);
        }
    }
}
