//! The part of SOQL that the simulated org reads: one object, parents by dots, WHERE, ORDER BY, LIMIT, OFFSET, COUNT().
//!
//! As strict as Salesforce about what clients get wrong: escapes that do not exist, quoted datetimes (see `eval`), an empty
//! `IN ()`, AND and OR side by side without parentheses.

use super::answer::parse_datetime;

/// Salesforce's longest statement, in characters.
const STATEMENT_MAX: usize = 100_000;
/// Parentheses within parentheses; more is a mistake, and would fill the stack.
const DEPTH_MAX: usize = 64;

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Paths of what is selected, as written; empty for `COUNT()`.
    pub fields: Vec<String>,
    /// The object, as written.
    pub from: String,
    /// Where the object's name begins, in characters from 1.
    pub from_column: usize,
    /// WHERE.
    pub filter: Option<Expr>,
    /// ORDER BY.
    pub order: Vec<Order>,
    /// LIMIT.
    pub limit: Option<usize>,
    /// OFFSET.
    pub offset: Option<usize>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// One of them.
    Or(Vec<Expr>),
    /// The contrary.
    Not(Box<Expr>),
    /// A field against a value.
    Compare {
        /// Path, as written.
        path: String,
        /// How.
        op: Op,
        /// Against what.
        value: Literal,
    },
    /// A field against a list.
    In {
        /// Path, as written.
        path: String,
        /// The list.
        values: Vec<Literal>,
        /// NOT IN.
        negated: bool,
    },
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Like,
}

/// A value in a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `TRUE` or `FALSE`
    Bool(bool),
    /// A number.
    Number(f64),
    /// A quoted text, unescaped.
    Text(String),
    /// What stands behind LIKE.
    Pattern(Vec<Piece>),
    /// `YYYY-MM-DD`
    Date(String),
    /// Milliseconds since 1970.
    DateTime(i64),
}

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// `_`: any one character.
    One,
    /// `%`: any number of characters.
    Any,
    /// This character.
    Letter(char),
}

/// A member of ORDER BY.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Path, as written.
    pub path: String,
    /// DESC.
    pub descending: bool,
    /// NULLS LAST; nulls come first otherwise.
    pub nulls_last: bool,
}

/// What is wrong with a statement, and at which character (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Salesforce's words.
    pub message: String,
    /// Where.
    pub column: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    /// And which of its characters were `\_` or `\%`, which only LIKE knows.
    Text(String, Vec<usize>),
    Raw(String),
    Symbol(&'static str),
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
    depth: usize,
}

type Parsed<T> = Result<T, SyntaxError>;

/// Reads a statement.
pub fn parse(text: &str) -> Parsed<Query> {
    if text.chars().count() > STATEMENT_MAX {
        return Err(SyntaxError { message: "SOQL statement is too long".to_owned(), column: STATEMENT_MAX });
    }
    let tokens = lex(text)?;
    let mut parser = Parser { tokens, at: 0, end: text.chars().count() + 1, depth: 0 };
    let query = parser.query()?;
    match parser.tokens.get(parser.at) {
        None => Ok(query),
        Some(_) => Err(parser.unexpected()),
    }
}

fn lex(text: &str) -> Parsed<Vec<(usize, Token)>> {
    let letters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    let fail = |message: String, at: usize| Err(SyntaxError { message, column: at + 1 });
    while let Some(&letter) = letters.get(at) {
        let start = at;
        if letter.is_whitespace() {
            at += 1;
            continue;
        }
        let run = |from: usize, keep: &dyn Fn(char) -> bool| {
            letters[from..].iter().take_while(|letter| keep(**letter)).collect::<String>()
        };
        let token = if letter.is_ascii_alphabetic() || letter == '_' {
            let word = run(at, &|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            at += word.chars().count();
            Token::Word(word)
        } else if letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.') {
            let raw = run(at, &|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | ':' | '.'));
            at += raw.chars().count();
            Token::Raw(raw)
        } else if letter == '\'' {
            at += 1;
            let mut value = String::new();
            let mut wild = Vec::new();
            loop {
                match letters.get(at) {
                    None => return fail("unexpected end of query: quoted text is not closed".to_owned(), start),
                    Some('\'') => break,
                    Some('\n' | '\r') => return fail("Invalid string: a line break has to be escaped".to_owned(), at),
                    Some('\\') => {
                        at += 1;
                        let escape = letters.get(at).copied().unwrap_or('\n');
                        match escape {
                            'n' | 'N' => value.push('\n'),
                            'r' | 'R' => value.push('\r'),
                            't' | 'T' => value.push('\t'),
                            'b' | 'B' => value.push('\u{8}'),
                            'f' | 'F' => value.push('\u{c}'),
                            '"' | '\'' | '\\' => value.push(escape),
                            '_' | '%' => {
                                wild.push(value.chars().count());
                                value.push(escape);
                            }
                            'u' => {
                                let hex = letters.get(at + 1..at + 5).map(|hex| hex.iter().collect::<String>());
                                let code =
                                    hex.and_then(|hex| u32::from_str_radix(&hex, 16).ok()).and_then(char::from_u32);
                                let Some(code) = code else {
                                    return fail("Illegal character sequence '\\u' in string".to_owned(), at);
                                };
                                value.push(code);
                                at += 4;
                            }
                            other => {
                                return fail(format!("Illegal character sequence '\\{other}' in string"), at - 1);
                            }
                        }
                        at += 1;
                    }
                    Some(other) => {
                        value.push(*other);
                        at += 1;
                    }
                }
            }
            at += 1;
            Token::Text(value, wild)
        } else {
            let two: String = letters[at..].iter().take(2).collect();
            let symbol = match (two.as_str(), letter) {
                ("!=" | "<>", _) => "!=",
                ("<=", _) => "<=",
                (">=", _) => ">=",
                (_, '=') => "=",
                (_, '<') => "<",
                (_, '>') => ">",
                (_, '(') => "(",
                (_, ')') => ")",
                (_, ',') => ",",
                _ => return fail(format!("unexpected token: '{letter}'"), at),
            };
            at += symbol.len();
            Token::Symbol(symbol)
        };
        tokens.push((start, token));
    }
    Ok(tokens)
}

impl Parser {
    fn unexpected(&self) -> SyntaxError {
        match self.tokens.get(self.at) {
            Some((at, token)) => {
                let text = match token {
                    Token::Word(text) | Token::Raw(text) => text.clone(),
                    Token::Text(text, _) => format!("'{text}'"),
                    Token::Symbol(text) => (*text).to_owned(),
                };
                SyntaxError { message: format!("unexpected token: '{text}'"), column: at + 1 }
            }
            None => SyntaxError { message: "unexpected token: '<EOF>'".to_owned(), column: self.end },
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.tokens.get(self.at), Some((_, Token::Word(text))) if text.eq_ignore_ascii_case(word))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some((_, Token::Symbol(text))) if *text == symbol);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, found: bool) -> Parsed<()> {
        if found { Ok(()) } else { Err(self.unexpected()) }
    }

    fn path(&mut self) -> Parsed<String> {
        const KEYWORDS: [&str; 12] =
            ["select", "from", "where", "and", "or", "not", "in", "like", "order", "by", "limit", "offset"];
        match self.tokens.get(self.at) {
            Some((_, Token::Word(text)))
                if !KEYWORDS.contains(&text.to_lowercase().as_str())
                    && !text.starts_with('.')
                    && !text.ends_with('.')
                    && !text.contains("..") =>
            {
                self.at += 1;
                Ok(text.clone())
            }
            _ => Err(self.unexpected()),
        }
    }

    fn query(&mut self) -> Parsed<Query> {
        let found = self.word("select");
        self.need(found)?;
        let mut fields = Vec::new();
        if self.is_word("count") && matches!(self.tokens.get(self.at + 1), Some((_, Token::Symbol("(")))) {
            self.at += 2;
            let found = self.symbol(")");
            self.need(found)?;
        } else {
            fields.push(self.path()?);
            while self.symbol(",") {
                fields.push(self.path()?);
            }
        }
        let found = self.word("from");
        self.need(found)?;
        let from_column = self.tokens.get(self.at).map_or(self.end, |(at, _)| at + 1);
        let from = self.path()?;
        let filter = if self.word("where") { Some(self.any()?) } else { None };
        let mut order = Vec::new();
        if self.word("order") {
            let found = self.word("by");
            self.need(found)?;
            loop {
                let path = self.path()?;
                let descending = self.word("desc");
                if !descending {
                    self.word("asc");
                }
                let mut nulls_last = false;
                if self.word("nulls") {
                    nulls_last = self.word("last");
                    if !nulls_last {
                        let found = self.word("first");
                        self.need(found)?;
                    }
                }
                order.push(Order { path, descending, nulls_last });
                if !self.symbol(",") {
                    break;
                }
            }
        }
        let limit = if self.word("limit") { Some(self.count()?) } else { None };
        let offset = if self.word("offset") { Some(self.count()?) } else { None };
        Ok(Query { fields, from, from_column, filter, order, limit, offset })
    }

    fn count(&mut self) -> Parsed<usize> {
        match self.tokens.get(self.at) {
            Some((_, Token::Raw(text))) if text.parse::<usize>().is_ok() => {
                self.at += 1;
                Ok(text.parse().unwrap_or_default())
            }
            _ => Err(self.unexpected()),
        }
    }

    /// Conditions joined by AND, or by OR; both need parentheses.
    fn any(&mut self) -> Parsed<Expr> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.unexpected());
        }
        let first = self.one()?;
        let mut all = vec![first];
        let (joiner, other) = if self.is_word("or") { ("or", "and") } else { ("and", "or") };
        while self.word(joiner) {
            all.push(self.one()?);
        }
        if self.is_word(other) {
            return Err(self.unexpected());
        }
        self.depth -= 1;
        Ok(match (all.len(), joiner) {
            (1, _) => all.swap_remove(0),
            (_, "or") => Expr::Or(all),
            _ => Expr::And(all),
        })
    }

    fn one(&mut self) -> Parsed<Expr> {
        if self.word("not") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(self.unexpected());
            }
            let inner = self.one()?;
            self.depth -= 1;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.symbol("(") {
            let inner = self.any()?;
            let found = self.symbol(")");
            self.need(found)?;
            return Ok(inner);
        }
        let path = self.path()?;
        let negated = self.word("not");
        if self.word("in") {
            let found = self.symbol("(");
            self.need(found)?;
            let mut values = vec![self.literal()?];
            while self.symbol(",") {
                values.push(self.literal()?);
            }
            let found = self.symbol(")");
            self.need(found)?;
            return Ok(Expr::In { path, values, negated });
        }
        if negated {
            return Err(self.unexpected());
        }
        let op = if self.word("like") {
            Op::Like
        } else {
            let op = match self.tokens.get(self.at) {
                Some((_, Token::Symbol("="))) => Op::Eq,
                Some((_, Token::Symbol("!="))) => Op::Ne,
                Some((_, Token::Symbol("<"))) => Op::Lt,
                Some((_, Token::Symbol("<="))) => Op::Le,
                Some((_, Token::Symbol(">"))) => Op::Gt,
                Some((_, Token::Symbol(">="))) => Op::Ge,
                _ => return Err(self.unexpected()),
            };
            self.at += 1;
            op
        };
        if op == Op::Like {
            let Some((_, Token::Text(text, wild))) = self.tokens.get(self.at) else { return Err(self.unexpected()) };
            let piece = |(at, letter): (usize, char)| match letter {
                '_' if !wild.contains(&at) => Piece::One,
                '%' if !wild.contains(&at) => Piece::Any,
                letter => Piece::Letter(letter),
            };
            let value = Literal::Pattern(text.chars().enumerate().map(piece).collect());
            self.at += 1;
            return Ok(Expr::Compare { path, op, value });
        }
        let value = self.literal()?;
        Ok(Expr::Compare { path, op, value })
    }

    fn literal(&mut self) -> Parsed<Literal> {
        let literal = match self.tokens.get(self.at) {
            Some((at, Token::Text(_, wild))) if !wild.is_empty() => {
                let message = "Illegal character sequence '\\_' or '\\%' in string outside LIKE".to_owned();
                return Err(SyntaxError { message, column: at + 1 });
            }
            Some((_, Token::Text(text, _))) => Literal::Text(text.clone()),
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("null") => Literal::Null,
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Some((_, Token::Word(word))) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Some((_, Token::Raw(raw))) => {
                if let Some(ms) = parse_datetime(raw) {
                    Literal::DateTime(ms)
                } else if raw.len() == 10 && raw.parse::<jiff::civil::Date>().is_ok() {
                    Literal::Date(raw.clone())
                } else if let Ok(number) = raw.parse::<f64>() {
                    Literal::Number(number)
                } else {
                    return Err(self.unexpected());
                }
            }
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(text: &str) -> usize {
        parse(text).unwrap_err().column
    }

    #[test]
    fn a_statement_with_everything_is_read() {
        let query = parse(
            "select Id, Account.Name from Contact where (Email = 'o\\'brien@x.com' OR NOT Phone LIKE '55\\%%') \
             AND SystemModstamp >= 2005-10-08T01:02:03Z AND Id NOT IN ('a','b') ORDER BY SystemModstamp ASC, Id DESC NULLS LAST \
             LIMIT 10 OFFSET 5",
        )
        .unwrap();
        assert_eq!(query.fields, ["Id", "Account.Name"]);
        assert_eq!((query.limit, query.offset), (Some(10), Some(5)));
        assert_eq!(
            (query.order[0].descending, query.order[1].descending, query.order[1].nulls_last),
            (false, true, true)
        );
        let Some(Expr::And(all)) = query.filter else { panic!() };
        assert_eq!(all.len(), 3);
        assert!(parse("SELECT COUNT() FROM Contact").unwrap().fields.is_empty());
    }

    #[test]
    fn what_salesforce_refuses_is_refused() {
        for text in [
            "",
            "SELECT FROM Contact",
            "SELECT Id FROM",
            "SELECT Id FROM Contact WHERE",
            "SELECT Id FROM Contact WHERE Email = 'o'brien@x.com'",
            "SELECT Id FROM Contact WHERE Email = 'a\\z'",
            "SELECT Id FROM Contact WHERE Email = 'a",
            "SELECT Id FROM Contact WHERE Email = 'a\\_b'",
            "SELECT Id FROM Contact WHERE Id IN ()",
            "SELECT Id FROM Contact WHERE A = 1 AND B = 2 OR C = 3",
            "SELECT Id FROM Contact LIMIT x",
            "SELECT Id FROM Contact; DELETE",
            "SELECT Id FROM Contact WHERE Email LIKE 5",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(column("SELECT Id FROM Contact WHERE A = 1 AND B = 2 OR C = 3"), 46);
        assert!(parse(&format!("SELECT Id FROM C WHERE {}A = 1", "(".repeat(5_000))).is_err(), "no stack is filled");
    }
}
