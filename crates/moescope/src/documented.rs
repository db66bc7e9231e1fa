//! Command lines in workflows and in docs/CI.md, read with the real definition of the options: what people
//! copy has to work.

use std::{collections::BTreeMap, path::Path};

use clap::Parser;

use crate::Cli;

/// Files that hold command lines, and how many at least.
const FILES: [(&str, usize); 3] =
    [(".github/workflows/ci.yml", 4), (".github/actions/gate/action.yml", 1), ("docs/CI.md", 8)];

/// Keys of a workflow whose value is a command.
const KEYS: [&str; 3] = ["run:", "base:", "new:"];

const SEPARATORS: [&str; 9] = ["|", "||", "&&", ";", ">", ">>", "2>", "<", "&"];

#[test]
fn command_lines_of_the_documentation_parse() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (file, least) in FILES {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let mut found = 0;
        for line in lines(&text, file.ends_with(".md")) {
            for command in commands(&line) {
                let shown = command.join(" ");
                if let Err(error) = Cli::try_parse_from(&command) {
                    panic!("{file}: `{shown}`: {error}");
                }
                found += 1;
            }
        }
        assert!(found >= least, "{file}: {found} command lines found, expected at least {least}");
    }
}

#[test]
fn a_mistake_is_noticed() {
    let all = |text: &str| -> Vec<Vec<String>> {
        lines(text, false).iter().flat_map(|line| commands(line)).collect()
    };
    let [command] = all("- run: a/moescope gate x --typo\n").try_into().unwrap();
    assert_eq!(command, ["a/moescope", "gate", "x", "--typo"]);
    assert!(Cli::try_parse_from(command).is_err());
    // Within quotes, after a separator, over two lines, from a matrix.
    let text = "  grid: -n 1\n  grid: -n 2\n\
                run: |\n  true && moescope gate --run 'moescope devices' \\\n    --vs \"x\" > out\n\
                base: moescope devices ${{ matrix.grid }}\n";
    let words: Vec<String> = all(text).iter().map(|command| command.join(" ")).collect();
    assert_eq!(
        words,
        [
            "moescope gate --run moescope devices --vs x",
            "moescope devices",
            "moescope devices -n 1",
            "moescope devices -n 2",
        ]
    );
    // Names are no commands.
    assert!(all("name: moescope gate\nrun: cp moescope b\nmoescope: bin/moescope\n").is_empty());
}

/// Logical lines: continued ones in one, of Markdown those of code, and one for each value of a matrix.
fn lines(text: &str, markdown: bool) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let mut fenced = false;
    let code = joined.lines().filter(|line| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !markdown || (!fence && (fenced || line.starts_with("    ")))
    });
    let code: Vec<&str> = code.collect();
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in &code {
        let pair = line.trim().trim_start_matches("- ").split_once(": ");
        // A value that is an expression itself is no value of a matrix.
        if let Some((key, value)) = pair.filter(|(_, value)| !value.contains("${{")) {
            values.entry(key).or_default().push(value);
        }
    }
    code.iter().flat_map(|line| expanded(line, &values)).collect()
}

/// A line for every value of the first `${{ matrix.KEY }}` in it, and so on for the others.
fn expanded(line: &str, values: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    const OPEN: &str = "${{ matrix.";
    let Some((before, rest)) = line.split_once(OPEN) else { return vec![line.to_owned()] };
    let (key, after) = rest.split_once(" }}").unwrap();
    let all = values.get(key).unwrap_or_else(|| panic!("no value for matrix.{key}"));
    all.iter().flat_map(|value| expanded(&format!("{before}{value}{after}"), values)).collect()
}

/// Calls of moescope in a line, those within quotes after the one around them.
fn commands(line: &str) -> Vec<Vec<String>> {
    let words = words(line);
    let mut found = Vec::new();
    let mut first = true;
    for (at, word) in words.iter().enumerate() {
        let starts = first && is_moescope(word);
        // Assignments and keywords may come before a command.
        let passes = ["-", "then", "!"].contains(&word.as_str()) || KEYS.contains(&word.as_str());
        first = SEPARATORS.contains(&word.as_str()) || (first && passes);
        let arguments: Vec<String> = words[at..]
            .iter()
            .take_while(|word| !SEPARATORS.contains(&word.as_str()))
            .flat_map(|word| substituted(word))
            .collect();
        if starts && arguments.len() > 1 {
            found.push(arguments);
        } else if word.contains(' ') && word.len() < line.len() {
            found.extend(commands(word));
        }
    }
    found
}

fn is_moescope(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or(word);
    name == "moescope" || name.starts_with("moescope-") || word == "$MOESCOPE"
}

/// What the arrays of the action hold.
fn substituted(word: &str) -> Vec<String> {
    match word {
        "${what[@]}" => ["--run", "a", "--vs", "b"].map(str::to_owned).into(),
        "${more[@]}" => Vec::new(),
        _ => vec![word.to_owned()],
    }
}

/// Words as a shell splits them; quotes are taken off.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
