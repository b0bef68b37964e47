//! Patterns over object keys: `*`, `?`, `**`, `[a-z]`, `{a,b}`, `\` before a character that stands for itself.
//!
//! The usual library translates such a pattern into a regular expression; its engine would be a large part of the deployed function. A key
//! has at most 1,024 bytes and a pattern a few dozen characters, so that following all ways at once is fast enough.

/// Ways that the choices `{…}` of one pattern may have together. `{a,b}{c,d}` has four.
const CHOICES_MAX: usize = 256;
/// Choices within choices; each is a call within a call.
const DEPTH_MAX: usize = 8;

/// A pattern, ready to be asked.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    /// Without choices: one of them has to match.
    ways: Vec<Vec<Token>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    One(char),
    /// One character, but for `/`.
    Any,
    /// Any number of characters within a folder.
    Star,
    /// Any number of whole folders, each with its `/`.
    Folders,
    /// All that is left.
    Rest,
    /// One of these characters, or none of them; never `/`, unless it is named.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::One(one) => *one == character,
            Self::Any | Self::Star => character != '/',
            Self::Folders | Self::Rest => true,
            Self::Class { negated, ranges } => {
                let named = ranges.iter().any(|(from, to)| (*from..=*to).contains(&character));
                named != *negated && (named || character != '/')
            }
        }
    }
}

impl Glob {
    /// Reads a pattern, or says what is wrong with it.
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let characters: Vec<char> = pattern.chars().collect();
        let mut parser = Parser { characters: &characters, at: 0 };
        let mut ways = parser.sequence(0)?;
        for way in &mut ways {
            way.dedup_by(|one, other| *one == Token::Folders && *other == Token::Folders);
            // `**/` alone is taken for `**`: no key ends with a slash but for what a console shows as a folder.
            if *way == [Token::Folders] {
                *way = vec![Token::Rest];
            }
        }
        match parser.next() {
            None => Ok(Self { ways }),
            Some(_) => Err("a `}` without its `{`; write \\} for the character".to_owned()),
        }
    }

    /// Whether the whole of `key` is described by the pattern.
    pub(super) fn is_match(&self, key: &str) -> bool {
        self.ways.iter().any(|tokens| matches(tokens, key))
    }
}

/// Follows all ways through `tokens` at once: after each character, the places where one may be.
fn matches(tokens: &[Token], key: &str) -> bool {
    let mut places = Places::none(tokens.len());
    places.enter(tokens, 0);
    for character in key.chars() {
        let mut next = Places::none(tokens.len());
        for (at, token) in tokens.iter().enumerate() {
            let (before, within) = (places.before(at), places.within(at));
            if !(before || within) || !token.takes(character) {
                continue;
            }
            match token {
                Token::Star | Token::Rest => next.enter(tokens, at),
                Token::Folders if character == '/' => next.enter(tokens, at),
                // The folder has to come to its end.
                Token::Folders => next.stay(at),
                _ => next.enter(tokens, at + 1),
            }
        }
        places = next;
    }
    places.before(tokens.len())
}

struct Places {
    before: Vec<bool>,
    within: Vec<bool>,
}

impl Places {
    fn none(tokens: usize) -> Self {
        Self { before: vec![false; tokens + 1], within: vec![false; tokens + 1] }
    }

    fn before(&self, at: usize) -> bool {
        self.before.get(at).copied().unwrap_or_default()
    }

    fn within(&self, at: usize) -> bool {
        self.within.get(at).copied().unwrap_or_default()
    }

    fn stay(&mut self, at: usize) {
        if let Some(within) = self.within.get_mut(at) {
            *within = true;
        }
    }

    /// Before token `at`, and before those behind it where it may stand for nothing.
    fn enter(&mut self, tokens: &[Token], mut at: usize) {
        loop {
            match self.before.get_mut(at) {
                Some(before) if !*before => *before = true,
                // Whatever follows has been entered with it.
                _ => return,
            }
            match tokens.get(at) {
                Some(Token::Star | Token::Folders | Token::Rest) => at += 1,
                _ => return,
            }
        }
    }
}

struct Parser<'a> {
    characters: &'a [char],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    /// Up to the end; within choices, up to the `,` or `}` that ends this one.
    fn sequence(&mut self, depth: usize) -> Result<Vec<Vec<Token>>, String> {
        let mut ways = vec![Vec::new()];
        while let Some(character) = self.peek() {
            if character == '}' || (depth > 0 && character == ',') {
                break;
            }
            self.at += 1;
            let token = match character {
                '?' => Token::Any,
                '*' => self.star(),
                '[' => self.class()?,
                '{' => {
                    ways = joined(&ways, &self.choices(depth + 1)?)?;
                    continue;
                }
                '\\' => Token::One(self.next().ok_or("it ends with `\\`, which has to stand before a character")?),
                one => Token::One(one),
            };
            ways.iter_mut().for_each(|way| way.push(token.clone()));
        }
        Ok(ways)
    }

    /// `**` stands for folders only between slashes or at an end; elsewhere it is two stars, which are as good as one.
    fn star(&mut self) -> Token {
        let begins = self.at < 2 || self.characters.get(self.at - 2) == Some(&'/');
        if self.peek() != Some('*') {
            return Token::Star;
        }
        self.at += 1;
        match self.peek() {
            None if begins => Token::Rest,
            Some('/') if begins => {
                self.at += 1;
                Token::Folders
            }
            _ => Token::Star,
        }
    }

    fn choices(&mut self, depth: usize) -> Result<Vec<Vec<Token>>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("choices `{{…}}` within choices, deeper than {DEPTH_MAX}"));
        }
        let mut ways = Vec::new();
        loop {
            // A choice of nothing is none.
            ways.extend(self.sequence(depth)?.into_iter().filter(|way| !way.is_empty()));
            match self.next() {
                Some(',') => {}
                Some(_) => break,
                None => return Err("a `{` without its `}`; write \\{ for the character".to_owned()),
            }
        }
        if ways.is_empty() {
            ways.push(Vec::new());
        }
        Ok(ways)
    }

    fn class(&mut self) -> Result<Token, String> {
        const OPEN: &str = "a `[` without its `]`; write \\[ for the character";
        let negated = matches!(self.peek(), Some('!' | '^'));
        self.at += usize::from(negated);
        let mut ranges: Vec<(char, char)> = Vec::new();
        loop {
            let from = match self.next().ok_or(OPEN)? {
                ']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
                character => character,
            };
            // A `-` at an end stands for itself.
            let is_range =
                self.peek() == Some('-') && self.characters.get(self.at + 1).is_some_and(|next| *next != ']');
            let to = if is_range {
                self.at += 1;
                self.next().ok_or(OPEN)?
            } else {
                from
            };
            if to < from {
                return Err(format!("the range {from}-{to} runs backwards"));
            }
            ranges.push((from, to));
        }
    }
}

fn joined(ways: &[Vec<Token>], ends: &[Vec<Token>]) -> Result<Vec<Vec<Token>>, String> {
    if ways.len().saturating_mul(ends.len()) > CHOICES_MAX {
        return Err(format!("its choices `{{…}}` make more than {CHOICES_MAX} patterns"));
    }
    let each = ways.iter().flat_map(|way| ends.iter().map(move |end| way.iter().chain(end).cloned().collect()));
    Ok(each.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Glob::new(pattern).unwrap();
        for key in yes {
            assert!(glob.is_match(key), "{pattern} should match {key}");
        }
        for key in no {
            assert!(!glob.is_match(key), "{pattern} should not match {key}");
        }
    }

    #[test]
    fn each_sign_means_what_people_expect() {
        check("in/*.csv", &["in/a.csv", "in/.csv", "in/Ä ö.csv"], &["in/x/a.csv", "in/a.csv.gz", "xin/a.csv"]);
        check("in/?.csv", &["in/a.csv", "in/Ä.csv"], &["in/.csv", "in/ab.csv", "in//.csv"]);
        check("in/**/a.csv", &["in/a.csv", "in/x/a.csv", "in/x/y/a.csv"], &["in/xa.csv", "in/x/ya.csv", "ina.csv"]);
        check("**/a.csv", &["a.csv", "x/y/a.csv"], &["xa.csv"]);
        check("in/**", &["in/a", "in/x/a", "in/"], &["in", "inx/a"]);
        check("**", &["", "a/b"], &[]);
        check("**/", &["a/b", "a/", "a"], &[]);
        check("**/**/", &["a/b", "a/", "a"], &[]);
        check("in/[a-c!]x", &["in/bx", "in/!x"], &["in/dx", "in/x"]);
        check("in/[!a-c]x", &["in/dx"], &["in/ax", "in//x"]);
        check("in/[]-]x", &["in/]x", "in/-x"], &["in/ax"]);
        check("in/{a,b{c,d}}.csv", &["in/a.csv", "in/bc.csv", "in/bd.csv"], &["in/b.csv", "in/.csv"]);
        check("in/\\*\\{.csv", &["in/*{.csv"], &["in/a{.csv"]);
        check("in/a,b.csv", &["in/a,b.csv"], &[]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (pattern, why) in
            [("[a", "`]`"), ("[", "`]`"), ("{a", "`}`"), ("a}", "`{`"), ("a\\", "`\\`"), ("[b-a]", "backwards")]
        {
            let text = Glob::new(pattern).unwrap_err();
            assert!(text.contains(why), "{pattern}: {text}");
        }
        assert!(Glob::new(&"{a,b}".repeat(8)).is_ok());
        assert!(Glob::new(&"{a,b}".repeat(9)).unwrap_err().contains("256"));
        assert!(Glob::new(&format!("{}a", "{".repeat(50_000))).is_err(), "no stack is left");
    }

    /// Patterns and keys that have a chance to meet. A class that names no `/` may take one in the other library.
    fn pattern() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            3 => "[ab./]",
            2 => Just("*".to_owned()),
            1 => Just("?".to_owned()),
            1 => "\\[[ab]\\]",
            1 => "\\[![ab]/\\]",
            1 => "\\{[ab*]{1,2},[ab/?]{0,2}\\}",
            1 => Just("/**/".to_owned()),
        ];
        (prop::bool::ANY, prop::collection::vec(part, 0..6), prop::bool::ANY).prop_map(|(before, parts, after)| {
            let (before, after) = (if before { "**/" } else { "" }, if after { "/**" } else { "" });
            format!("{before}{}{after}", parts.concat())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn a_pattern_matches_what_the_usual_library_says(pattern in pattern(), keys in prop::collection::vec("[ab./]{0,8}", 8)) {
            // Elsewhere than between slashes `**` is refused before a pattern comes here.
            prop_assume!(!pattern.split('/').any(|part| part.contains("**") && part != "**"));
            let usual = globset::GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(true).build();
            let usual = usual.unwrap().compile_matcher();
            let glob = Glob::new(&pattern).unwrap();
            for key in keys {
                prop_assert_eq!(glob.is_match(&key), usual.is_match(&key), "{} {}", pattern, key);
            }
        }
    }
}
