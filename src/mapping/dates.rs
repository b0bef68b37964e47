//! Dates and times as files write them, to what HubSpot takes: `YYYY-MM-DD`, and ISO 8601 in UTC with milliseconds.
//!
//! `03/04/2024` is two dates. Which one is meant is decided by the column (a part above 12 somewhere in it) or by a
//! stated format, never by a guess.

use std::borrow::Cow;

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    fmt::strtime,
    tz::{Offset, TimeZone},
};
use serde::{Deserialize, Serialize};

/// What comes first in a column's numeric dates, where the year comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DateOrder {
    /// `31/12/2024`
    DayFirst,
    /// `12/31/2024`
    MonthFirst,
    /// Some cells show one, some the other: only cells that can be read in one way are taken.
    Mixed,
}

impl DateOrder {
    /// What two observations say together.
    pub(crate) fn join(known: Option<Self>, seen: Option<Self>) -> Option<Self> {
        match (known, seen) {
            (None, order) | (order, None) => order,
            (Some(known), Some(seen)) => Some(if known == seen { known } else { Self::Mixed }),
        }
    }
}

/// Why a cell is no date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DateFault {
    /// Not a date at all, or not in the stated format.
    Unreadable,
    /// A date that the calendar does not have.
    Impossible,
    /// `03/04/2024` in a column that does not show which part is the day.
    Ambiguous,
    /// `12/31/2024` in a column whose dates put the day first, or the other way round.
    Contradicts(DateOrder),
    /// A short whole number: the day count of a spreadsheet.
    Serial,
    /// Seconds since 1970, which HubSpot's milliseconds are easily taken for.
    Seconds,
    /// Milliseconds since 1970 that are no midnight, for a property without a time of day.
    NotMidnight,
}

/// Longer text is no date; keeps a cell of a megabyte from being searched.
const DATE_BYTES_MAX: usize = 64;

/// Two-digit years below this are of this century, as POSIX has it.
const PIVOT_YEAR: i16 = 69;

/// A date as it is written, before the order of its parts is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Sure(Date),
    Either { day_first: Option<Date>, month_first: Option<Date>, dots: bool },
    Instant(Timestamp),
}

/// A cell taken apart: the date, and the time of day with its offset from UTC where they are stated.
struct Scanned {
    date: Written,
    time: Time,
    offset: Option<Offset>,
}

/// The value of a `date` property: `YYYY-MM-DD`. A time of day in the cell is read over. `cell` is trimmed and not empty.
pub(crate) fn date<'a>(
    cell: &'a str,
    format: Option<&str>,
    order: Option<DateOrder>,
) -> Result<Cow<'a, str>, DateFault> {
    let date = match format {
        Some(format) => match stated(cell, format)? {
            Stated::Civil(civil, _) => civil.date(),
            Stated::Instant(instant) => midnight(instant)?,
        },
        None => match scan(cell)?.date {
            Written::Instant(instant) => midnight(instant)?,
            written => decide(written, order)?,
        },
    };
    let mut plain = Digits::with_capacity("2024-12-31".len());
    plain.date(date);
    Ok(plain.or_same(cell))
}

/// The value of a `datetime` property: ISO 8601 in UTC with milliseconds. Times without an offset are in `zone`, dates
/// without a time mean midnight there. `cell` is trimmed and not empty.
pub(crate) fn datetime<'a>(
    cell: &'a str,
    format: Option<&str>,
    order: Option<DateOrder>,
    zone: &TimeZone,
) -> Result<Cow<'a, str>, DateFault> {
    let place = |civil: DateTime, offset: Option<Offset>| match offset {
        Some(offset) => offset.to_timestamp(civil).map_err(|_| DateFault::Impossible),
        None => zone.to_timestamp(civil).map_err(|_| DateFault::Impossible),
    };
    let instant = match format {
        Some(format) => match stated(cell, format)? {
            Stated::Civil(civil, offset) => place(civil, offset)?,
            Stated::Instant(instant) => instant,
        },
        None => {
            let scanned = scan(cell)?;
            match scanned.date {
                Written::Instant(instant) => instant,
                written => place(decide(written, order)?.to_datetime(scanned.time), scanned.offset)?,
            }
        }
    };
    let utc = Offset::UTC.to_datetime(instant);
    if utc.year() < 0 {
        return Err(DateFault::Impossible);
    }
    let mut plain = Digits::with_capacity("2024-12-31T23:59:59.999Z".len());
    plain.date(utc.date());
    plain.put("T", utc.hour().into(), 2);
    plain.put(":", utc.minute().into(), 2);
    plain.put(":", utc.second().into(), 2);
    plain.put(".", utc.millisecond(), 3);
    plain.0.push('Z');
    Ok(plain.or_same(cell))
}

/// A value that is written digit by digit: the formatting machinery takes several times as long.
struct Digits(String);

impl Digits {
    fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    fn date(&mut self, date: Date) {
        self.put("", date.year(), 4);
        self.put("-", date.month().into(), 2);
        self.put("-", date.day().into(), 2);
    }

    /// Appends `before` and the last `count` digits of a number that is not negative.
    fn put(&mut self, before: &str, number: i16, count: u32) {
        self.0.push_str(before);
        let number = number.unsigned_abs();
        for place in (0..count).rev() {
            let digit = number / 10_u16.pow(place) % 10;
            self.0.push(char::from(b'0' + digit as u8));
        }
    }

    /// What was written, or the cell itself where that says the same.
    fn or_same(self, cell: &str) -> Cow<'_, str> {
        if self.0 == cell { Cow::Borrowed(cell) } else { Cow::Owned(self.0) }
    }
}

/// Which order a cell gives away, if it is a date that does.
pub(crate) fn evidence(cell: &str) -> Option<DateOrder> {
    if !cell.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    match scan(cell).ok()?.date {
        Written::Either { day_first: Some(_), month_first: None, .. } => Some(DateOrder::DayFirst),
        Written::Either { day_first: None, month_first: Some(_), .. } => Some(DateOrder::MonthFirst),
        _ => None,
    }
}

/// Whether a cell looks like a date, whatever the order of its parts, and whether it states a time of day.
pub(crate) fn shape(cell: &str) -> Option<bool> {
    // Bare numbers are more often numbers than moments.
    if cell.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scanned = scan(cell).ok()?;
    Some(cell.contains(':') && !matches!(scanned.date, Written::Instant(_)))
}

/// Checks a stated format: it must give a whole date back. The error says what is wrong with it.
pub(crate) fn check_format(format: &str) -> Result<(), String> {
    let sample = Date::constant(2024, 11, 23).at(13, 45, 59, 0);
    let zoned = sample.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
    let text = strtime::format(format, &zoned).map_err(|error| error.to_string())?;
    match stated(&text, format) {
        Ok(Stated::Civil(civil, _)) if civil.date() == sample.date() => Ok(()),
        Ok(Stated::Instant(_)) => Ok(()),
        _ => Err("it does not state day, month and year".to_owned()),
    }
}

enum Stated {
    Civil(DateTime, Option<Offset>),
    Instant(Timestamp),
}

/// A cell in a format that consists of `%Y`, `%m`, `%d`, `%H`, `%M`, `%S` and signs between them, and that is written with all of its
/// digits: what nearly all files hold, read in a tenth of the time. `None` says nothing about the cell.
fn plainly(cell: &str, format: &str) -> Option<DateTime> {
    let (mut year, mut month, mut day, mut time) = (None, None, None, [None; 3]);
    let (mut format, mut cell) = (format.as_bytes(), cell.as_bytes());
    while let [sign, rest @ ..] = format {
        if *sign != b'%' {
            let (same, after) = cell.split_first()?;
            // Letters and spaces have rules of their own.
            if sign != same || !(sign.is_ascii_punctuation() || *sign == b'T') {
                return None;
            }
            (format, cell) = (rest, after);
            continue;
        }
        let (directive, rest) = rest.split_first()?;
        // Fields that touch each other are not told apart by their digits.
        if rest.first() == Some(&b'%') {
            return None;
        }
        let (digits, after) = cell.split_at_checked(if *directive == b'Y' { 4 } else { 2 })?;
        let mut number = 0_i16;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            number = number * 10 + i16::from(digit - b'0');
        }
        let small = i8::try_from(number);
        match directive {
            // What stands twice has to be right twice.
            b'Y' if year.is_none() => year = Some(number),
            b'm' if month.is_none() => month = Some(small.ok()?),
            b'd' if day.is_none() => day = Some(small.ok()?),
            b'H' if time[0].is_none() => time[0] = Some(small.ok()?),
            b'M' if time[1].is_none() => time[1] = Some(small.ok()?),
            b'S' if time[2].is_none() => time[2] = Some(small.ok()?),
            _ => return None,
        }
        (format, cell) = (rest, after);
    }
    if !cell.is_empty() {
        return None;
    }
    let [hour, minute, second] = time.map(Option::unwrap_or_default);
    let date = Date::new(year?, month?, day?).ok()?;
    Some(date.to_datetime(Time::new(hour, minute, second, 0).ok()?))
}

fn stated(cell: &str, format: &str) -> Result<Stated, DateFault> {
    if let Some(civil) = plainly(cell, format) {
        return Ok(Stated::Civil(civil, None));
    }
    let parsed = strtime::parse(format, cell).map_err(|_| DateFault::Unreadable)?;
    if let Some(instant) = parsed.timestamp() {
        return Ok(Stated::Instant(instant));
    }
    let civil = parsed.to_datetime().map_err(|_| DateFault::Impossible)?;
    if civil.year() < 0 {
        return Err(DateFault::Impossible);
    }
    Ok(Stated::Civil(civil, parsed.offset()))
}

fn midnight(instant: Timestamp) -> Result<Date, DateFault> {
    let utc = Offset::UTC.to_datetime(instant);
    if utc.time() == Time::midnight() && utc.year() >= 0 { Ok(utc.date()) } else { Err(DateFault::NotMidnight) }
}

fn decide(written: Written, order: Option<DateOrder>) -> Result<Date, DateFault> {
    let (day_first, month_first, dots) = match written {
        Written::Sure(date) => return Ok(date),
        Written::Instant(_) => return Err(DateFault::Unreadable),
        Written::Either { day_first, month_first, dots } => (day_first, month_first, dots),
    };
    match (day_first, month_first, order) {
        (None, None, _) => Err(DateFault::Impossible),
        (Some(date), Some(same), _) if date == same => Ok(date),
        (Some(date), _, Some(DateOrder::DayFirst)) | (_, Some(date), Some(DateOrder::MonthFirst)) => Ok(date),
        (_, _, Some(order @ (DateOrder::DayFirst | DateOrder::MonthFirst))) => Err(DateFault::Contradicts(order)),
        (Some(date), None, _) | (None, Some(date), _) => Ok(date),
        // Nobody who writes dots puts the month first.
        (Some(date), Some(_), None) if dots => Ok(date),
        (Some(_), Some(_), _) => Err(DateFault::Ambiguous),
    }
}

fn scan(cell: &str) -> Result<Scanned, DateFault> {
    if cell.len() > DATE_BYTES_MAX {
        return Err(DateFault::Unreadable);
    }
    if cell.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Scanned { date: bare_digits(cell)?, time: Time::midnight(), offset: None });
    }
    let (date_text, time, offset) = match cell.find(':') {
        Some(colon) => {
            let head = cell.get(..colon).unwrap_or_default();
            let hour_digits = head.bytes().rev().take_while(u8::is_ascii_digit).count();
            let at = colon - hour_digits;
            if !(1..=2).contains(&hour_digits) {
                return Err(DateFault::Unreadable);
            }
            let (time, offset) = time_of_day(cell.get(at..).unwrap_or_default())?;
            let before = cell.get(..at).unwrap_or_default();
            let date = match before.strip_suffix(['T', 't']) {
                Some(date) if date.ends_with(|c: char| c.is_ascii_digit()) => date,
                _ => before,
            };
            if date.len() == before.len() && !before.ends_with([' ', ',']) {
                return Err(DateFault::Unreadable);
            }
            (date.trim_end_matches([' ', ',']), time, offset)
        }
        None => (cell, Time::midnight(), None),
    };
    let date =
        if date_text.bytes().any(|byte| byte.is_ascii_alphabetic()) { named(date_text)? } else { numeric(date_text)? };
    Ok(Scanned { date, time, offset })
}

fn bare_digits(cell: &str) -> Result<Written, DateFault> {
    match cell.len() {
        // Milliseconds from 1973 to 2286.
        12 | 13 => cell
            .parse()
            .ok()
            .and_then(|millis| Timestamp::from_millisecond(millis).ok())
            .map(Written::Instant)
            .ok_or(DateFault::Unreadable),
        9 | 10 => Err(DateFault::Seconds),
        8 => {
            let part = |range: std::ops::Range<usize>| cell.get(range).unwrap_or_default();
            let year = number(part(0..4)).ok_or(DateFault::Unreadable)?;
            if !(1800..=2200).contains(&year) {
                return Err(DateFault::Unreadable);
            }
            sure(year, number(part(4..6)), number(part(6..8)))
        }
        1..=6 => Err(DateFault::Serial),
        _ => Err(DateFault::Unreadable),
    }
}

fn number(text: &str) -> Option<i16> {
    if text.is_empty() || text.len() > 4 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn calendar(year: i16, month: i16, day: i16) -> Option<Date> {
    Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn sure(year: i16, month: Option<i16>, day: Option<i16>) -> Result<Written, DateFault> {
    let (Some(month), Some(day)) = (month, day) else { return Err(DateFault::Unreadable) };
    calendar(year, month, day).map(Written::Sure).ok_or(DateFault::Impossible)
}

fn full_year(text: &str) -> Option<i16> {
    let year = number(text)?;
    match text.len() {
        4 => Some(year),
        2 if year < PIVOT_YEAR => Some(2000 + year),
        2 => Some(1900 + year),
        _ => None,
    }
}

fn numeric(text: &str) -> Result<Written, DateFault> {
    let separator = text.chars().find(|c| matches!(c, '-' | '/' | '.')).ok_or(DateFault::Unreadable)?;
    let mut parts = text.split(separator).map(str::trim);
    let (Some(a), Some(b), Some(c), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(DateFault::Unreadable);
    };
    let (Some(first), Some(second)) = (number(a), number(b)) else { return Err(DateFault::Unreadable) };
    if b.len() > 2 || (a.len() != 4 && a.len() > 2) {
        return Err(DateFault::Unreadable);
    }
    if a.len() == 4 {
        return if c.len() <= 2 { sure(first, Some(second), number(c)) } else { Err(DateFault::Unreadable) };
    }
    // `24-03-05` may as well begin with the year.
    if separator == '-' && c.len() == 2 && number(c).is_some_and(|year| year <= 31) {
        return Err(DateFault::Ambiguous);
    }
    let year = full_year(c).ok_or(DateFault::Unreadable)?;
    Ok(Written::Either {
        day_first: calendar(year, second, first),
        month_first: calendar(year, first, second),
        dots: separator == '.',
    })
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// The place of a word among `names`, which may be cut to three letters or (`Sept`) a few more.
fn place(word: &str, names: &[&str]) -> Option<usize> {
    let word = word.trim_end_matches('.');
    if word.len() < 3 {
        return None;
    }
    names.iter().position(|name| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)))
}

/// `1 March 2024`, `Mar 1st, 2024`, `1-Mar-24`, `2024 March 1`, `Fri, 1 Mar 2024`.
fn named(text: &str) -> Result<Written, DateFault> {
    let mut words = text.split([' ', ',', '-', '/']).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_some_and(|word| place(word, &WEEKDAYS).is_some()) {
        words.next();
    }
    let (Some(a), Some(b), Some(c), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(DateFault::Unreadable);
    };
    let day = |word: &str| {
        let word = word.trim_end_matches('.');
        let digits = ["st", "nd", "rd", "th"].iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word);
        if digits.len() > 2 { None } else { number(digits) }
    };
    let month = |word: &str| place(word, &MONTHS).and_then(|index| i16::try_from(index + 1).ok());
    let (year, month, day) = if let Some(month) = month(a) {
        (full_year(c), month, day(b))
    } else if let Some(month) = month(b) {
        if a.len() == 4 && !a.ends_with(|c: char| c.is_ascii_alphabetic()) {
            (full_year(a), month, day(c))
        } else {
            (full_year(c), month, day(a))
        }
    } else {
        return Err(DateFault::Unreadable);
    };
    sure(year.ok_or(DateFault::Unreadable)?, Some(month), day)
}

/// `HH:MM[:SS[.fff]] [AM|PM] [Z|UTC|GMT|±HH[:MM]]`.
fn time_of_day(text: &str) -> Result<(Time, Option<Offset>), DateFault> {
    let bytes = text.as_bytes();
    let two = |at: usize| {
        let tens = bytes.get(at).filter(|byte| byte.is_ascii_digit())?;
        let ones = bytes.get(at + 1).filter(|byte| byte.is_ascii_digit())?;
        i8::try_from((tens - b'0') * 10 + (ones - b'0')).ok()
    };
    let colon = text.find(':').ok_or(DateFault::Unreadable)?;
    let mut hour: i8 = text.get(..colon).and_then(|hour| hour.parse().ok()).ok_or(DateFault::Unreadable)?;
    let minute = two(colon + 1).ok_or(DateFault::Unreadable)?;
    let mut at = colon + 3;
    let (mut second, mut nanosecond) = (0, 0_i32);
    if bytes.get(at) == Some(&b':') {
        second = two(at + 1).ok_or(DateFault::Unreadable)?;
        at += 3;
        if matches!(bytes.get(at), Some(b'.' | b',')) {
            let digits = bytes.iter().skip(at + 1).take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return Err(DateFault::Unreadable);
            }
            let fraction = text.get(at + 1..at + 1 + digits).unwrap_or_default();
            nanosecond = format!("{fraction:0<9}").parse().map_err(|_| DateFault::Unreadable)?;
            at += 1 + digits;
        }
    }
    let mut rest = text.get(at..).unwrap_or_default().trim_start();
    for (marks, afternoon) in [(["AM", "A.M."], false), (["PM", "P.M."], true)] {
        let Some(mark) =
            marks.iter().find(|mark| rest.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark)))
        else {
            continue;
        };
        if !(1..=12).contains(&hour) {
            return Err(DateFault::Impossible);
        }
        hour = hour % 12 + if afternoon { 12 } else { 0 };
        rest = rest.get(mark.len()..).unwrap_or_default().trim_start();
        break;
    }
    let time = Time::new(hour, minute, second, nanosecond).map_err(|_| DateFault::Impossible)?;
    Ok((time, offset(rest)?))
}

fn offset(text: &str) -> Result<Option<Offset>, DateFault> {
    if text.is_empty() {
        return Ok(None);
    }
    if ["Z", "UTC", "GMT"].iter().any(|utc| text.eq_ignore_ascii_case(utc)) {
        return Ok(Some(Offset::UTC));
    }
    let (sign, digits) = match (text.strip_prefix('+'), text.strip_prefix(['-', '\u{2212}'])) {
        (Some(digits), _) => (1, digits),
        (None, Some(digits)) => (-1, digits),
        (None, None) => return Err(DateFault::Unreadable),
    };
    let (hours, minutes) = match (digits.len(), digits.split_once(':')) {
        (5, Some(parts)) => parts,
        (4, None) => digits.split_at_checked(2).ok_or(DateFault::Unreadable)?,
        (2, None) => (digits, "00"),
        _ => return Err(DateFault::Unreadable),
    };
    let (Some(hours), Some(minutes)) = (number(hours), number(minutes)) else { return Err(DateFault::Unreadable) };
    // The earth has offsets up to 14 hours.
    if hours > 14 || minutes > 59 {
        return Err(DateFault::Impossible);
    }
    let seconds = sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60);
    Offset::from_seconds(seconds).map(Some).map_err(|_| DateFault::Impossible)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use DateFault::{Ambiguous, Contradicts, Impossible, NotMidnight, Seconds, Serial, Unreadable};
    use DateOrder::{DayFirst, Mixed, MonthFirst};

    #[track_caller]
    fn check_date(cell: &str, order: Option<DateOrder>, expect: Result<&str, DateFault>) {
        assert_eq!(date(cell, None, order).as_deref(), expect.as_ref().copied(), "{cell}");
    }

    #[track_caller]
    fn check_datetime(cell: &str, zone: &str, expect: Result<&str, DateFault>) {
        let zone = TimeZone::get(zone).unwrap();
        assert_eq!(datetime(cell, None, None, &zone).as_deref(), expect.as_ref().copied(), "{cell}");
    }

    #[test]
    fn dates_that_can_be_read_in_one_way_are() {
        for (cell, expect) in [
            ("2024-03-01", "2024-03-01"),
            ("2024/3/1", "2024-03-01"),
            ("2024.03.01", "2024-03-01"),
            ("20240301", "2024-03-01"),
            ("31/12/2024", "2024-12-31"),
            ("12/31/2024", "2024-12-31"),
            ("31-12-2024", "2024-12-31"),
            ("03.04.2024", "2024-04-03"),
            ("3. 4. 2024", "2024-04-03"),
            ("5/5/2024", "2024-05-05"),
            ("31/12/99", "1999-12-31"),
            ("31/12/24", "2024-12-31"),
            ("1 March 2024", "2024-03-01"),
            ("March 1, 2024", "2024-03-01"),
            ("Mar 1st 2024", "2024-03-01"),
            ("1-Mar-24", "2024-03-01"),
            ("2 Sept. 2024", "2024-09-02"),
            ("2024 May 3", "2024-05-03"),
            ("Fri, 1 Mar 2024 10:00:00 GMT", "2024-03-01"),
            ("2024-03-01T23:30:00-08:00", "2024-03-01"),
            ("2024-02-29", "2024-02-29"),
            ("1709251200000", "2024-03-01"),
        ] {
            check_date(cell, None, Ok(expect));
        }
    }

    #[test]
    fn day_and_month_are_told_apart_by_the_column_or_not_at_all() {
        check_date("03/04/2024", None, Err(Ambiguous));
        check_date("03-04-2024", None, Err(Ambiguous));
        check_date("03/04/2024", Some(Mixed), Err(Ambiguous));
        check_date("03.04.2024", Some(Mixed), Err(Ambiguous));
        check_date("03/04/2024", Some(DayFirst), Ok("2024-04-03"));
        check_date("03/04/2024", Some(MonthFirst), Ok("2024-03-04"));
        check_date("31/12/2024", Some(Mixed), Ok("2024-12-31"));
        check_date("12/31/2024", Some(DayFirst), Err(Contradicts(DayFirst)));
        check_date("31/12/2024", Some(MonthFirst), Err(Contradicts(MonthFirst)));
        check_date("24-03-05", Some(DayFirst), Err(Ambiguous));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for (cell, fault) in [
            ("2023-02-29", Impossible),
            ("30/02/2024", Impossible),
            ("30 February 2024", Impossible),
            ("2024-13-01", Impossible),
            ("45352", Serial),
            ("1709251200", Seconds),
            ("1709251200001", NotMidnight),
            ("soon", Unreadable),
            ("2024-03", Unreadable),
            ("1/2/3/4", Unreadable),
            ("31/12/2024x", Unreadable),
            ("Marble 1 2024", Unreadable),
            ("12:30", Unreadable),
            ("2024-03-0112:30", Unreadable),
            ("2024-03-01 12:3", Unreadable),
            ("2024-03-01 12:30 CET", Unreadable),
            ("2024-03-01 25:30", Impossible),
            ("2024-03-01 13:30 PM", Impossible),
            ("-", Unreadable),
            (":", Unreadable),
        ] {
            check_date(cell, None, Err(fault));
        }
    }

    #[test]
    fn moments_become_utc_and_naive_ones_are_in_the_accounts_zone() {
        for (cell, expect) in [
            ("2024-03-01T10:15:30Z", "2024-03-01T10:15:30.000Z"),
            ("2024-03-01T10:15:30.1239+01:00", "2024-03-01T09:15:30.123Z"),
            ("2024-03-01 10:15 +0530", "2024-03-01T04:45:00.000Z"),
            ("2024-03-01 10:15", "2024-03-01T09:15:00.000Z"),
            ("2024-07-01 10:15", "2024-07-01T08:15:00.000Z"),
            ("2024-07-01", "2024-06-30T22:00:00.000Z"),
            ("31/12/2024, 9:05 pm", "2024-12-31T20:05:00.000Z"),
            ("12/31/2024 12:00 AM", "2024-12-30T23:00:00.000Z"),
            ("Mar 1, 2024 10:15:30 UTC", "2024-03-01T10:15:30.000Z"),
            ("1709288130123", "2024-03-01T10:15:30.123Z"),
        ] {
            check_datetime(cell, "Europe/Berlin", Ok(expect));
        }
        check_datetime("9999-12-31T23:59:59-14:00", "UTC", Err(Impossible));
    }

    #[test]
    fn a_stated_format_is_the_only_one() {
        assert_eq!(date("03/04/2024", Some("%d/%m/%Y"), Some(MonthFirst)).as_deref(), Ok("2024-04-03"));
        assert_eq!(date("2024-04-03", Some("%d/%m/%Y"), None).as_deref(), Err(&Unreadable));
        assert_eq!(date("30/02/2024", Some("%d/%m/%Y"), None).as_deref(), Err(&Impossible));
        let zone = TimeZone::get("America/New_York").unwrap();
        assert_eq!(
            datetime("03.04.24 10h15", Some("%d.%m.%y %Hh%M"), None, &zone).as_deref(),
            Ok("2024-04-03T14:15:00.000Z")
        );
        assert_eq!(datetime("1709288130", Some("%s"), None, &zone).as_deref(), Ok("2024-03-01T10:15:30.000Z"));
    }

    proptest! {
        /// What is read the short way is what the whole machinery reads.
        #[test]
        fn the_short_way_to_read_a_stated_format_says_what_the_long_one_says(
            format in prop_oneof![
                Just("%d/%m/%Y"), Just("%m/%d/%Y"), Just("%Y-%m-%d"), Just("%d.%m.%Y"), Just("%Y%m%d"), Just("%d/%m/%Y %H:%M"),
                Just("%Y-%m-%dT%H:%M:%S"), Just("%d-%m-%y"), Just("%H:%M %d/%m/%Y"), Just("%Y/%d/%m/%d"), Just("%m/%Y"), Just("%%%d/%m/%Y"),
            ],
            parts in proptest::collection::vec(prop_oneof![0_u16..70, 1990_u16..2030], 6),
            width in 1_usize..=2,
            damage in proptest::option::of((0_usize..20, "[-/.T: 0-9x]")),
        ) {
            let mut cell = String::new();
            let mut parts = parts.into_iter();
            let mut signs = format.chars();
            while let Some(sign) = signs.next() {
                match (sign, if sign == '%' { signs.next() } else { None }) {
                    (_, Some('%')) => cell.push('%'),
                    (_, Some('Y')) => cell.push_str(&format!("{:04}", 1980 + parts.next().unwrap_or(0) % 70)),
                    (_, Some('y')) => cell.push_str(&format!("{:02}", parts.next().unwrap_or(0) % 100)),
                    (_, Some(_)) => cell.push_str(&format!("{:0width$}", parts.next().unwrap_or(0) % 33)),
                    (sign, None) => cell.push(sign),
                }
            }
            if let Some((at, sign)) = damage && at < cell.len() {
                cell.replace_range(at..=at, &sign);
            }
            if let Some(civil) = plainly(&cell, format) {
                let long = strtime::parse(format, &cell).and_then(|parsed| parsed.to_datetime());
                prop_assert_eq!(long.ok(), Some(civil), "{} as {}", cell, format);
            }
        }
    }

    #[test]
    fn usual_formats_are_read_the_short_way() {
        assert!(plainly("31/12/2024", "%d/%m/%Y").is_some());
        assert!(plainly("2024-12-31T23:59:58", "%Y-%m-%dT%H:%M:%S").is_some());
        assert_eq!(plainly("31/12/2024 ", "%d/%m/%Y"), None);
        assert_eq!(plainly("1/12/2024", "%d/%m/%Y"), None, "left to the long way");
    }

    #[test]
    fn formats_that_state_no_date_are_found_before_the_first_row() {
        for format in ["%d/%m/%Y", "%m/%d/%y %H:%M", "%s", "%Y-%m-%dT%H:%M:%S%z", "%e %B %Y"] {
            assert_eq!(check_format(format), Ok(()), "{format}");
        }
        for format in ["", "%d/%m", "dd/mm/yyyy", "%J", "%H:%M"] {
            assert!(check_format(format).is_err(), "{format}");
        }
    }

    #[test]
    fn cells_give_away_their_columns_order() {
        for (cell, expect) in [
            ("31/12/2024", Some(DayFirst)),
            ("31.12.2024 10:00", Some(DayFirst)),
            ("12/31/2024", Some(MonthFirst)),
            ("03/04/2024", None),
            ("2024-12-31", None),
            ("30/02/2024", None),
            ("12 Main Street", None),
        ] {
            assert_eq!(evidence(cell), expect, "{cell}");
        }
    }
}
