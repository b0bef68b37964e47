//! Numbers as people and spreadsheets write them, to the plain decimals HubSpot takes.
//!
//! Digits are moved, never computed with: no value passes through binary floating point, and what could be read in two
//! ways (`1,234`) is refused unless the column's other cells decide it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Which sign a column uses as its decimal mark; the other one groups thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NumberStyle {
    /// `1,234.50`
    Point,
    /// `1.234,50`
    Comma,
    /// Some cells show one, some the other: only cells that can be read in one way are taken.
    Mixed,
}

impl NumberStyle {
    /// What two observations say together.
    pub(crate) fn join(known: Option<Self>, seen: Option<Self>) -> Option<Self> {
        match (known, seen) {
            (None, style) | (style, None) => style,
            (Some(known), Some(seen)) => Some(if known == seen { known } else { Self::Mixed }),
        }
    }
}

/// Why a cell is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberFault {
    /// Not a number at all.
    Unreadable,
    /// `12%`: HubSpot's percentages are fractions, and whether 12 or 0.12 is meant cannot be told.
    Percent,
    /// `1,234` in a column that does not show whether the sign groups or divides.
    Ambiguous,
    /// `1,5` in a column whose decimal mark is the point, or the other way round.
    Contradicts(NumberStyle),
}

/// More digits than any number has; keeps exponents from blowing up.
const DIGITS_MAX: usize = 100;

/// Currency codes that are read over. Any sign that Unicode calls a currency sign is as well.
const CURRENCIES: [&str; 16] =
    ["USD", "EUR", "GBP", "CHF", "JPY", "CAD", "AUD", "NZD", "SEK", "NOK", "DKK", "PLN", "CZK", "INR", "BRL", "MXN"];

/// The plain decimal a cell stands for. `cell` is trimmed and not empty.
pub(crate) fn convert(cell: &str, style: Option<NumberStyle>) -> Result<Cow<'_, str>, NumberFault> {
    // Most cells are whole numbers already.
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    if !digits.is_empty() && digits.len() <= DIGITS_MAX && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Cow::Borrowed(cell));
    }
    let number = Written::read(cell)?;
    let mark = number.decimal_mark(style)?;
    let mut plain = String::with_capacity(cell.len() + 1);
    if number.negative {
        plain.push('-');
    }
    let (whole, fraction) = match mark {
        Some(at) => (number.body.get(..at).unwrap_or_default(), number.body.get(at + 1..).unwrap_or_default()),
        None => (number.body, ""),
    };
    let before = plain.len();
    for group in whole.split(|c: char| !c.is_ascii_digit()) {
        plain.push_str(group);
    }
    if plain.len() == before {
        plain.push('0');
    }
    if !fraction.is_empty() {
        plain.push('.');
        plain.push_str(fraction);
    }
    if let Some(exponent) = number.exponent {
        plain = shift(&plain, exponent);
    }
    Ok(if plain == cell { Cow::Borrowed(cell) } else { Cow::Owned(plain) })
}

/// Which decimal mark a cell gives away, if it is a number that does.
pub(crate) fn evidence(cell: &str) -> Option<NumberStyle> {
    // Letters at the start are words; the many text cells of a sample end here.
    if !cell.bytes().any(|byte| byte == b',' || byte == b'.') {
        return None;
    }
    Written::read(cell).ok().and_then(|number| number.evidence())
}

/// A cell taken apart.
struct Written<'a> {
    negative: bool,
    /// Digits, marks and grouping signs.
    body: &'a str,
    exponent: Option<i32>,
    /// Where the decimal mark is, as far as the cell itself tells.
    mark: Mark,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// No fraction, and grouped by nothing, spaces or apostrophes.
    None,
    /// No fraction, grouped by this sign.
    Groups(u8),
    /// The sign at this place divides.
    At(usize, u8),
    /// The sign at this place divides or groups.
    Either(usize, u8),
}

impl<'a> Written<'a> {
    fn read(cell: &'a str) -> Result<Self, NumberFault> {
        // Nearly all cells hold nothing but digits and marks.
        if cell.bytes().all(|byte| byte.is_ascii_digit() || byte == b',' || byte == b'.') {
            let mark = mark(cell, false).ok_or(NumberFault::Unreadable)?;
            return Ok(Self { negative: false, body: cell, exponent: None, mark });
        }
        let (mut body, mut negative) = match cell.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => (inner.trim(), true),
            None => (cell, false),
        };
        let mut signed = negative;
        let mut currency = false;
        // One sign and one currency, on either side of each other: `-$5`, `$-5`, `5 EUR`.
        for _ in 0..3 {
            if !signed && let Some(rest) = body.strip_prefix(['-', '\u{2212}', '+']) {
                negative = !body.starts_with('+');
                signed = true;
                body = rest.trim_start();
            } else if !currency && let Some(rest) = without_currency(body) {
                currency = true;
                body = rest;
            }
        }
        if body.ends_with('%') {
            return Err(NumberFault::Percent);
        }
        let (body, exponent) = match body.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let exponent = exponent.strip_prefix('+').unwrap_or(exponent);
                let exponent: i32 = exponent.parse().map_err(|_| NumberFault::Unreadable)?;
                if exponent.unsigned_abs() as usize > DIGITS_MAX {
                    return Err(NumberFault::Unreadable);
                }
                (mantissa, Some(exponent))
            }
            None => (body, None),
        };
        let mark = mark(body, exponent.is_some()).ok_or(NumberFault::Unreadable)?;
        Ok(Self { negative, body, exponent, mark })
    }

    fn evidence(&self) -> Option<NumberStyle> {
        match self.mark {
            Mark::At(_, b'.') | Mark::Groups(b',') => Some(NumberStyle::Point),
            Mark::At(..) | Mark::Groups(_) => Some(NumberStyle::Comma),
            Mark::None | Mark::Either(..) => None,
        }
    }

    /// Where the decimal mark is, given what the column shows.
    fn decimal_mark(&self, style: Option<NumberStyle>) -> Result<Option<usize>, NumberFault> {
        if let (Some(style @ (NumberStyle::Point | NumberStyle::Comma)), Some(seen)) = (style, self.evidence())
            && style != seen
        {
            return Err(NumberFault::Contradicts(style));
        }
        match (self.mark, style) {
            (Mark::None | Mark::Groups(_), _) => Ok(None),
            (Mark::At(at, _), _) => Ok(Some(at)),
            (Mark::Either(at, b'.'), Some(NumberStyle::Point)) | (Mark::Either(at, b','), Some(NumberStyle::Comma)) => {
                Ok(Some(at))
            }
            (Mark::Either(..), Some(NumberStyle::Point | NumberStyle::Comma)) => Ok(None),
            (Mark::Either(..), None | Some(NumberStyle::Mixed)) => Err(NumberFault::Ambiguous),
        }
    }
}

fn without_currency(body: &str) -> Option<&str> {
    // Nearly all cells begin and end with a digit: nothing to look for.
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    if is_digit(body.as_bytes().first()) && is_digit(body.as_bytes().last()) {
        return None;
    }
    let sign = |c: char| matches!(c, '$' | '\u{a2}'..='\u{a5}' | '\u{20a0}'..='\u{20cf}' | '\u{ff04}' | '\u{ffe5}');
    if let Some(rest) = body.strip_prefix(sign) {
        return Some(rest.trim_start());
    }
    if let Some(rest) = body.strip_suffix(sign) {
        return Some(rest.trim_end());
    }
    CURRENCIES.iter().find_map(|code| {
        body.strip_prefix(code).map(str::trim_start).or_else(|| body.strip_suffix(code).map(str::trim_end))
    })
}

fn is_space_group(c: char) -> bool {
    matches!(c, ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}' | '\'' | '\u{2019}')
}

/// What the signs in `body` mean; `None` if it is no number.
fn mark(body: &str, exponent: bool) -> Option<Mark> {
    let (mut dots, mut commas, mut spaces, mut digits) = (0_usize, 0_usize, 0_usize, 0_usize);
    for c in body.chars() {
        match c {
            '0'..='9' => digits += 1,
            '.' => dots += 1,
            ',' => commas += 1,
            c if is_space_group(c) => spaces += 1,
            _ => return None,
        }
    }
    if digits == 0 || digits > DIGITS_MAX {
        return None;
    }
    let last = |sign: u8| body.bytes().rposition(|byte| byte == sign);
    let (mark, whole_end, group) = match (dots, commas) {
        (0, 0) => (Mark::None, body.len(), None),
        (0, 1) | (1, 0) => {
            let sign = if dots == 1 { b'.' } else { b',' };
            let at = last(sign)?;
            let fraction = body.len() - at - 1;
            let either = spaces == 0 && !exponent && fraction == 3 && (1..=3).contains(&at) && !body.starts_with('0');
            (if either { Mark::Either(at, sign) } else { Mark::At(at, sign) }, at, None)
        }
        (0, _) => (Mark::Groups(b','), body.len(), Some(',')),
        (_, 0) => (Mark::Groups(b'.'), body.len(), Some('.')),
        (dots, commas) => {
            let (dot, comma) = (last(b'.')?, last(b',')?);
            let (at, sign, count, group) =
                if dot > comma { (dot, b'.', dots, ',') } else { (comma, b',', commas, '.') };
            if count != 1 {
                return None;
            }
            (Mark::At(at, sign), at, Some(group))
        }
    };
    let whole = body.get(..whole_end)?;
    let fraction = body.get(whole_end + 1..).unwrap_or_default();
    let grouped = spaces > 0 || group.is_some();
    // One number has one way of grouping, and an exponent goes with none.
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || (grouped && exponent) || (spaces > 0 && group.is_some()) {
        return None;
    }
    match group {
        _ if !grouped => Some(mark),
        Some(sign) => groups_are_right(whole.split(sign), sign == ',').then_some(mark),
        None => groups_are_right(whole.split(is_space_group), false).then_some(mark),
    }
}

/// Groups of three; with commas also the Indian `12,34,567`.
fn groups_are_right<'a>(groups: impl DoubleEndedIterator<Item = &'a str> + Clone, indian: bool) -> bool {
    let sizes = |middle: usize| {
        let mut groups = groups.clone();
        let first = groups.next().unwrap_or_default().len();
        let last = groups.next_back().unwrap_or_default().len();
        (1..=middle).contains(&first) && last == 3 && groups.all(|group| group.len() == middle)
    };
    sizes(3) || (indian && sizes(2))
}

/// Moves the decimal point of a plain decimal by `exponent` places to the right.
fn shift(plain: &str, exponent: i32) -> String {
    let (sign, unsigned) = plain.strip_prefix('-').map_or(("", plain), |rest| ("-", rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    let places = usize::try_from(exponent.unsigned_abs()).unwrap_or(DIGITS_MAX);
    let (whole, fraction) = if exponent >= 0 {
        let at = whole.len() + places;
        let padded = format!("{digits:0<at$}");
        (padded.get(..at).unwrap_or_default().to_owned(), padded.get(at..).unwrap_or_default().to_owned())
    } else {
        let width = fraction.len() + places + 1;
        let padded = format!("{digits:0>width$}");
        let at = padded.len() - (fraction.len() + places);
        (padded.get(..at).unwrap_or_default().to_owned(), padded.get(at..).unwrap_or_default().to_owned())
    };
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NumberFault::{Ambiguous, Contradicts, Percent, Unreadable};
    use NumberStyle::{Comma, Mixed, Point};

    #[track_caller]
    fn check(cell: &str, style: Option<NumberStyle>, expect: Result<&str, NumberFault>) {
        assert_eq!(convert(cell, style).as_deref(), expect.as_ref().copied(), "{cell}");
    }

    #[test]
    fn plain_numbers_pass_unchanged_and_unallocated() {
        for cell in ["0", "42", "-7", "3.5", "0.125", "1234.567", "00123", "12345678901234567890.12"] {
            assert!(matches!(convert(cell, None), Ok(Cow::Borrowed(same)) if same == cell), "{cell}");
        }
    }

    #[test]
    fn numbers_as_people_write_them_become_plain() {
        for (cell, expect) in [
            ("1,234.50", "1234.50"),
            ("1.234,50", "1234.50"),
            ("1 234,5", "1234.5"),
            ("1\u{a0}234\u{a0}567", "1234567"),
            ("1\u{202f}234,567", "1234.567"),
            ("1'234.50", "1234.50"),
            ("1,234,567", "1234567"),
            ("1.234.567", "1234567"),
            ("12,34,567.8", "1234567.8"),
            ("3,5", "3.5"),
            ("0,125", "0.125"),
            ("+5", "5"),
            ("$1,234.50", "1234.50"),
            ("-$5.00", "-5.00"),
            ("$-5.00", "-5.00"),
            ("1.234,50 €", "1234.50"),
            ("EUR 12,5", "12.5"),
            ("12.5 USD", "12.5"),
            ("(1,234.50)", "-1234.50"),
            ("($5)", "-5"),
            ("\u{2212}5", "-5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("1.5E+3", "1500"),
            ("1.25e-3", "0.00125"),
            ("-12e-1", "-1.2"),
            ("0e5", "0"),
        ] {
            check(cell, None, Ok(expect));
        }
    }

    #[test]
    fn what_could_mean_two_numbers_is_decided_by_the_column_or_refused() {
        check("1,234", None, Err(Ambiguous));
        check("1.234", None, Err(Ambiguous));
        check("1,234", Some(Mixed), Err(Ambiguous));
        check("1,234", Some(Point), Ok("1234"));
        check("1.234", Some(Point), Ok("1.234"));
        check("1,234", Some(Comma), Ok("1.234"));
        check("1.234", Some(Comma), Ok("1234"));
        check("1,5", Some(Mixed), Ok("1.5"));
    }

    #[test]
    fn a_cell_against_its_column_is_refused() {
        check("1,5", Some(Point), Err(Contradicts(Point)));
        check("1,234.5", Some(Comma), Err(Contradicts(Comma)));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for cell in [
            "abc",
            "1,23,4",
            "1,2345,678",
            "12 34",
            "1.2.3",
            "1,2.3,4",
            "--5",
            "1-2",
            "NaN",
            "inf",
            "$",
            ".",
            "-",
            "1e999",
            "e5",
            "1,234 567",
            "٣",
            "5 apples",
            "()",
            "1,,234",
        ] {
            check(cell, None, Err(Unreadable));
        }
        check("12%", None, Err(Percent));
    }

    #[test]
    fn cells_give_away_their_columns_style() {
        for (cell, expect) in [
            ("1,234.5", Some(Point)),
            ("1.5", Some(Point)),
            ("1,234,567", Some(Point)),
            ("1,5", Some(Comma)),
            ("1.234.567", Some(Comma)),
            ("0.123", Some(Point)),
            ("1234,567", Some(Comma)),
            ("1.234", None),
            ("12", None),
            ("a.b", None),
        ] {
            assert_eq!(evidence(cell), expect, "{cell}");
        }
    }
}
