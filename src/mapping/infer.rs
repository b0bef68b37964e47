//! Types for properties that do not exist yet, from whole columns.
//!
//! One odd cell in a million makes a column text: a type that is too narrow would refuse rows for ever after.

use super::{dates, detect::DetectedColumn, numbers};
use crate::{
    csv::Cells,
    hubspot::{model::PropertyOption, properties::NewProperty},
};

/// HubSpot's limit for a property's name.
const NAME_CHARS_MAX: usize = 100;

/// Longer digit strings are phone numbers, accounts and ids, of which HubSpot's numbers would lose digits.
const NUMBER_DIGITS_MAX: usize = 15;

#[derive(Debug, Clone)]
struct Guess {
    filled: bool,
    number: bool,
    boolean: bool,
    date: bool,
    times: bool,
    /// Some cell needs the column's style to be read.
    unclear_number: bool,
    unclear_date: bool,
    detected: DetectedColumn,
}

/// Guesses the types of all columns of a file, row by row, in constant memory.
#[derive(Debug, Clone)]
pub struct TypeInference {
    columns: Vec<Guess>,
}

impl TypeInference {
    /// For rows of `columns` cells.
    pub fn new(columns: usize) -> Self {
        let guess = Guess {
            filled: false,
            number: true,
            boolean: true,
            date: true,
            times: false,
            unclear_number: false,
            unclear_date: false,
            detected: DetectedColumn::default(),
        };
        Self { columns: vec![guess; columns] }
    }

    /// Takes a row into account; blank cells say nothing.
    pub fn observe(&mut self, cells: &Cells) {
        for (guess, cell) in self.columns.iter_mut().zip(cells.iter()) {
            let cell = cell.trim();
            if !cell.is_empty() {
                guess.observe(cell);
            }
        }
    }

    /// The property to create for the column at `index` with this header, under a `name` or one made from the header. The group is the
    /// caller's to add.
    pub fn property(&self, index: usize, header: &str, name: Option<&str>) -> NewProperty {
        let (kind, field_type) = self.columns.get(index).map_or(("string", "text"), Guess::kind);
        NewProperty {
            name: name.map_or_else(|| property_name(header), str::to_owned),
            label: header.trim().to_owned(),
            kind: kind.to_owned(),
            field_type: field_type.to_owned(),
            group_name: String::new(),
            has_unique_value: false,
            options: if kind == "bool" { yes_and_no() } else { Vec::new() },
        }
    }
}

/// HubSpot wants the two options of a boolean spelled out.
fn yes_and_no() -> Vec<PropertyOption> {
    let option =
        |label: &str, value: &str| PropertyOption { label: label.to_owned(), value: value.to_owned(), hidden: false };
    vec![option("Yes", "true"), option("No", "false")]
}

impl Guess {
    fn observe(&mut self, cell: &str) {
        self.filled = true;
        self.detected.observe(cell);
        if self.boolean {
            self.boolean = ["true", "false", "yes", "no"].iter().any(|word| word.eq_ignore_ascii_case(cell));
        }
        if self.number {
            let digits = cell.bytes().filter(u8::is_ascii_digit).count();
            let code = cell.starts_with('0') && cell.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
            let phone = cell.starts_with('+');
            let unclear = numbers::convert(cell, None) == Err(numbers::NumberFault::Ambiguous);
            self.unclear_number |= unclear;
            self.number =
                digits <= NUMBER_DIGITS_MAX && !code && !phone && (unclear || numbers::convert(cell, None).is_ok());
        }
        if self.date {
            let shape = dates::shape(cell);
            self.date = shape.is_some();
            self.times |= shape == Some(true);
            self.unclear_date |= dates::date(cell, None, None) == Err(dates::DateFault::Ambiguous);
        }
    }

    fn kind(&self) -> (&'static str, &'static str) {
        use super::{dates::DateOrder, numbers::NumberStyle};
        let number_is_clear = match self.detected.number {
            None => !self.unclear_number,
            Some(style) => style != NumberStyle::Mixed,
        };
        let date_is_clear = match self.detected.date {
            None => !self.unclear_date,
            Some(order) => order != DateOrder::Mixed,
        };
        if !self.filled {
            ("string", "text")
        } else if self.boolean {
            ("bool", "booleancheckbox")
        } else if self.number && number_is_clear {
            ("number", "number")
        } else if self.date && date_is_clear {
            if self.times { ("datetime", "date") } else { ("date", "date") }
        } else {
            ("string", "text")
        }
    }
}

/// A name HubSpot takes, made from a header: `Favourite Colour!` gives `favourite_colour`.
pub fn property_name(header: &str) -> String {
    let mut name = String::new();
    for c in header.trim().chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            'ä' => name.push_str("ae"),
            'ö' => name.push_str("oe"),
            'ü' => name.push_str("ue"),
            'ß' => name.push_str("ss"),
            'à'..='å' => name.push('a'),
            'è'..='ë' => name.push('e'),
            'ç' => name.push('c'),
            'ñ' => name.push('n'),
            _ if name.is_empty() || name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, "p_");
    }
    name.truncate(NAME_CHARS_MAX);
    name.truncate(name.trim_end_matches('_').len());
    if name.len() < 2 { "p_column".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cells: &[&str], expect: &str) {
        let mut inference = TypeInference::new(1);
        for cell in cells {
            inference.observe(&[cell].into_iter().collect());
        }
        assert_eq!(inference.property(0, "H", None).kind, expect, "{cells:?}");
    }

    #[test]
    fn the_type_fits_every_cell_of_the_column() {
        check(&["1", "2.5", ""], "number");
        check(&["1,234", "1.5"], "number");
        check(&["1", "2", "x"], "string");
        check(&["yes", "NO"], "bool");
        check(&["1", "0"], "number");
        check(&["2024-03-01", "31/12/2024"], "date");
        check(&["2024-03-01", "2024-03-01 10:00"], "datetime");
        check(&[], "string");
        check(&["", ""], "string");
    }

    #[test]
    fn what_could_lose_something_stays_text() {
        check(&["00123"], "string");
        check(&["+491701234567"], "string");
        check(&["12345678901234567"], "string");
        check(&["03/04/2024"], "string");
        check(&["1,234"], "string");
        check(&["1.5", "1,5"], "string");
    }

    #[test]
    fn names_are_what_hubspot_takes() {
        assert_eq!(property_name(" Favourite Colour! "), "favourite_colour");
        assert_eq!(property_name("2nd Größe"), "p_2nd_groesse");
        assert_eq!(property_name("日本"), "p_column");
        assert!(property_name(&"x".repeat(300)).len() <= 100);
    }
}
