//! What came of every comparison, kept in a file of tab-separated lines so that a long row of them can go on
//! where it was stopped.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
};

use crate::arms::Seen;

/// What is compared with the build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Itself.
    Same,
    /// Every pass 10 % longer.
    Slow,
    /// Other experts now and then.
    Routing,
}

const KINDS: [(&str, Kind); 3] =
    [("same", Kind::Same), ("slow", Kind::Slow), ("routing", Kind::Routing)];

/// One comparison.
pub(crate) struct Line {
    pub(crate) kind: Kind,
    pub(crate) number: usize,
    /// Whether another process computed beside it.
    pub(crate) company: bool,
    pub(crate) seen: Seen,
    pub(crate) seconds: f64,
    /// Processes that wanted to run at its end, over the last minute.
    pub(crate) load: f64,
}

pub(crate) struct Ledger {
    pub(crate) lines: Vec<Line>,
    file: Option<File>,
}

impl Line {
    /// A false alarm, or something missed.
    pub(crate) fn is_wrong(&self) -> bool {
        match self.kind {
            Kind::Same => self.seen.slower || self.seen.different,
            Kind::Slow => !self.seen.slower,
            Kind::Routing => !self.seen.different,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('\t');
        let mut field = || fields.next();
        let name = field()?;
        let (_, kind) = KINDS.into_iter().find(|(word, _)| *word == name)?;
        let number = field()?.parse().ok()?;
        let company = field()? == "company";
        let seen = Seen {
            slower: field()? == "slower",
            different: field()? == "different",
            pairs: {
                let (first, second) = field()?.split_once('+')?;
                [first.parse().ok()?, second.parse().ok()?]
            },
            times: field()?.to_owned(),
        };
        let (seconds, load) = (field()?.parse().ok()?, field()?.parse().ok()?);
        Some(Self { kind, number, company, seen, seconds, load })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |yes, word| if yes { word } else { "-" };
        let name = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(name, _)| name);
        let fields = [
            name.to_owned(),
            self.number.to_string(),
            word(self.company, "company").to_owned(),
            word(self.seen.slower, "slower").to_owned(),
            word(self.seen.different, "different").to_owned(),
            format!("{}+{}", self.seen.pairs[0], self.seen.pairs[1]),
            self.seen.times.clone(),
            format!("{:.2}", self.seconds),
            format!("{:.2}", self.load),
        ];
        f.write_str(&fields.join("\t"))
    }
}

impl Ledger {
    /// With the lines that are in the file already. The first line says how they were made; lines made otherwise
    /// are no part of this row.
    pub(crate) fn open(path: Option<PathBuf>, made: &str) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self { lines: Vec::new(), file: None }) };
        let head = format!("# {made}");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        if let Some(found) = text.lines().next().filter(|line| *line != head) {
            return Err(format!("{}: it begins with {found:?}, expected {head:?}", path.display()));
        }
        let lines = text.lines().filter_map(Line::parse).collect();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = file.expect("the file of --out can be written");
        if text.is_empty() {
            writeln!(file, "{head}").expect("the file of --out can be written");
        }
        Ok(Self { lines, file: Some(file) })
    }

    pub(crate) fn has(&self, kind: Kind, number: usize) -> bool {
        self.lines.iter().any(|line| line.kind == kind && line.number == number)
    }

    pub(crate) fn add(&mut self, line: Line) {
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}").expect("the file of --out can be written");
        }
        self.lines.push(line);
    }
}
