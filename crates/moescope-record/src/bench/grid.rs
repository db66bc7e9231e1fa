//! Lists and ranges of sizes, and the configurations their cross product makes.

use std::str::FromStr;

use moescope_trace::bench::Configuration;

use super::error::BenchError;

/// Rows of a grid at most.
const MOST_ROWS: usize = 10_000;
/// Largest size of anything.
const LARGEST: u32 = 1 << 30;

/// Sizes as they are typed: `128,512`, `0-4096+1024`, `128-1024*2`, or several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(pub Vec<u32>);

/// Prompt and generated tokens of one row: `512,128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Prompt tokens.
    pub prompt: u32,
    /// Generated tokens.
    pub generate: u32,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Prompt lengths, a row each; 0 is none.
    pub prompts: Vec<u32>,
    /// Tokens to generate, a row each; 0 is none.
    pub generations: Vec<u32>,
    /// Prompts with a generation after them, a row each.
    pub pairs: Vec<Pair>,
    /// Tokens in the cache before.
    pub depths: Vec<u32>,
    /// Sequences at once.
    pub batches: Vec<u32>,
}

impl Grid {
    /// The rows: for every batch and depth the prompts, the generations, the pairs. Equal ones once.
    ///
    /// # Errors
    ///
    /// There is no row, or there are more than 10,000.
    pub fn configurations(&self, workload: &str) -> Result<Vec<Configuration>, BenchError> {
        let prompts = self.prompts.iter().map(|&prompt| Pair { prompt, generate: 0 });
        let generations = self.generations.iter().map(|&generate| Pair { prompt: 0, generate });
        let tests: Vec<Pair> = prompts
            .chain(generations)
            .chain(self.pairs.iter().copied())
            .filter(|test| test.prompt + test.generate > 0)
            .collect();
        let rows = tests.len().saturating_mul(self.depths.len()).saturating_mul(self.batches.len());
        if rows > MOST_ROWS {
            return Err(BenchError::TooLarge { rows, most: MOST_ROWS });
        }
        let mut configurations = Vec::with_capacity(rows);
        let mut seen = std::collections::BTreeSet::new();
        for &batch in self.batches.iter().filter(|&&batch| batch > 0) {
            for &depth in &self.depths {
                for &Pair { prompt, generate } in &tests {
                    let workload = workload.to_owned();
                    let row = Configuration { workload, prompt, generate, depth, batch };
                    if seen.insert(row.clone()) {
                        configurations.push(row);
                    }
                }
            }
        }
        match configurations.is_empty() {
            true => Err(BenchError::Empty),
            false => Ok(configurations),
        }
    }
}

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            numbers.extend(range(part.trim())?);
            if numbers.len() > MOST_ROWS {
                return Err(format!("{part}: more than {MOST_ROWS} values"));
            }
        }
        Ok(Numbers(numbers))
    }
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((prompt, generate)) = text.split_once(',') else {
            return Err("expected prompt and generated tokens, such as 512,128".into());
        };
        Ok(Pair { prompt: number(prompt)?, generate: number(generate)? })
    }
}

/// `7`, `first-last`, `first-last+step`, `first-last*factor`; the last is included where it is met.
fn range(text: &str) -> Result<Vec<u32>, String> {
    let Some((first, rest)) = text.split_once('-') else { return Ok(vec![number(text)?]) };
    let (last, step) = match rest.find(['+', '*']) {
        Some(at) => (&rest[..at], Some((&rest[at..=at], &rest[at + 1..]))),
        None => (rest, None),
    };
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(format!("{text}: a range goes from the smaller number to the larger"));
    }
    let next: Box<dyn Fn(u32) -> u32> = match step {
        None => Box::new(|n| n + 1),
        Some(("+", step)) => match number(step)? {
            0 => return Err(format!("{text}: a step of 0 goes nowhere")),
            step => Box::new(move |n| n.saturating_add(step)),
        },
        Some((_, factor)) => match number(factor)? {
            0 | 1 => return Err(format!("{text}: a factor below 2 goes nowhere")),
            _ if first == 0 => {
                return Err(format!("{text}: 0 times anything stays 0; use a step (+)"));
            }
            factor => Box::new(move |n| n.saturating_mul(factor)),
        },
    };
    let values: Vec<u32> = std::iter::successors(Some(first), |&n| Some(next(n)))
        .take_while(|&n| n <= last)
        .take(MOST_ROWS + 1)
        .collect();
    match values.len() > MOST_ROWS {
        true => Err(format!("{text}: more than {MOST_ROWS} values")),
        false => Ok(values),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.trim().parse::<u32>() {
        Ok(n) if n <= LARGEST => Ok(n),
        Ok(n) => Err(format!("{n} is above {LARGEST}")),
        // `-pg`, as llama-bench spells it, is -p with a g.
        Err(_) if text == "g" => Err("for a prompt and a generation in one row: --pg P,G".into()),
        Err(_) => Err(format!(
            "{text:?} is no number; expected a list or range such as 128,512, 128-1024*2 or 0-4096+1024"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<u32> {
        text.parse::<Numbers>().unwrap().0
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(numbers("128"), [128]);
        assert_eq!(numbers("1, 2,4"), [1, 2, 4]);
        assert_eq!(numbers("128-1024*2"), [128, 256, 512, 1024]);
        assert_eq!(numbers("128-1000*2"), [128, 256, 512]);
        assert_eq!(numbers("0-4096+1024"), [0, 1024, 2048, 3072, 4096]);
        assert_eq!(numbers("0,512-2048+512,5-7"), [0, 512, 1024, 1536, 2048, 5, 6, 7]);
        assert_eq!(numbers("3-3"), [3]);
        assert_eq!("512,128".parse(), Ok(Pair { prompt: 512, generate: 128 }));
    }

    #[test]
    fn what_is_no_list() {
        let wrong = [
            "",
            ",",
            "a",
            "-1",
            "1-",
            "4-1",
            "1-4+0",
            "1-4*1",
            "0-4*2",
            "1-4*",
            "1.5",
            "1e3",
            "1-2-3",
            "99999999999",
            "1073741825",
            "0-1073741824",
            "1-4+-1",
            "g",
        ];
        for text in wrong {
            assert!(text.parse::<Numbers>().is_err(), "{text}");
        }
        for text in ["512", "512,", "1,2,3", "a,b"] {
            assert!(text.parse::<Pair>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_cross_product_once_each() {
        let grid = Grid {
            prompts: vec![0, 8, 8],
            generations: vec![4],
            pairs: vec![Pair { prompt: 8, generate: 4 }],
            depths: vec![0, 16],
            batches: vec![1, 2],
        };
        let rows = grid.configurations("text").unwrap();
        let names: Vec<String> = rows.iter().map(ToString::to_string).collect();
        assert_eq!(rows.len(), 3 * 2 * 2);
        assert_eq!(
            names[..4],
            ["text pp8 b1", "text tg4 b1", "text pp8 tg4 b1", "text pp8 d16 b1"]
        );
        let nothing = Grid { prompts: vec![0], generations: vec![], pairs: vec![], ..grid.clone() };
        assert!(matches!(nothing.configurations("text"), Err(BenchError::Empty)));
        let many = Grid { depths: (0..4000).collect(), ..grid };
        assert!(matches!(many.configurations("text"), Err(BenchError::TooLarge { .. })));
    }
}
