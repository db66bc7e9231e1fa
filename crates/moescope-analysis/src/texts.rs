//! Texts of tokens: a vocabulary is small beside a trace, so each distinct text is held once.

use std::collections::HashMap;

/// The text of every token of a run. Untrusted: escape it where it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenTexts {
    distinct: Vec<String>,
    /// Index into `distinct`, `[T]`.
    of_token: Vec<u32>,
}

impl TokenTexts {
    /// Gathers the texts of tokens in their order; `None` where none of them has any.
    pub fn collect<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut known: HashMap<&str, u32> = HashMap::new();
        let mut distinct: Vec<String> = Vec::new();
        let mut of_token = Vec::with_capacity(texts.size_hint().0);
        for text in texts {
            let next = distinct.len() as u32;
            let index = *known.entry(text).or_insert(next);
            if index == next {
                distinct.push(text.to_owned());
            }
            of_token.push(index);
        }
        distinct.iter().any(|text| !text.is_empty()).then_some(Self { distinct, of_token })
    }

    /// The text of a token.
    ///
    /// # Panics
    ///
    /// Where there is no such token.
    pub fn of(&self, token: usize) -> &str {
        &self.distinct[self.of_token[token] as usize]
    }

    /// Number of tokens, T.
    pub fn len(&self) -> usize {
        self.of_token.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.of_token.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_held_once() {
        let texts = ["the", " cat", "the", "", " cat"];
        let held = TokenTexts::collect(texts.into_iter()).unwrap_or_default();
        assert_eq!((0..held.len()).map(|token| held.of(token)).collect::<Vec<_>>(), texts);
        assert_eq!(held.distinct.len(), 3);
    }

    #[test]
    fn runs_without_texts_have_none() {
        assert_eq!(TokenTexts::collect(["", "", ""].into_iter()), None);
        assert_eq!(TokenTexts::collect([].into_iter()), None);
    }
}
