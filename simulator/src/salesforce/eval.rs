//! Runs a statement over the org's records: names are looked up, literals checked against the fields' types, rows found.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::Org;
use super::answer::{ApiError, Handled};
use super::catalog::FieldType;
use super::ids;
use super::soql::{Expr, Literal, Op, Piece, Query, SyntaxError, parse};
use super::store::{Cell, Cells, ID, IS_DELETED, fold};

/// Fields on the way to a value: references first, the field itself last, each with its table.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) steps: Vec<(usize, usize)>,
    pub(crate) kind: FieldType,
    case_sensitive: bool,
}

/// A checked statement.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) table: usize,
    /// What is selected; empty for COUNT().
    pub(crate) columns: Vec<Path>,
    filter: Option<Test>,
    order: Vec<(Path, bool, bool)>,
    limit: Option<usize>,
    offset: usize,
    /// The ids that the filter asks for, where it does.
    ids: Option<Vec<String>>,
}

#[derive(Debug, Clone)]
enum Test {
    And(Vec<Test>),
    Or(Vec<Test>),
    Not(Box<Test>),
    Null(Path, bool),
    Compare(Path, Op, Cell),
    Like(Path, Vec<Piece>),
    In { path: Path, values: HashSet<String>, null: bool, negated: bool },
}

/// Deepest way through parents.
const PARENTS_MAX: usize = 5;
/// Salesforce's largest OFFSET.
const OFFSET_MAX: usize = 2_000;

pub(crate) fn malformed(text: &str, error: &SyntaxError) -> Box<ApiError> {
    ApiError::bad("MALFORMED_QUERY", format!("{}{}", pointer(text, error.column), error.message))
}

/// The lines that show where in a statement something is wrong.
fn pointer(text: &str, column: usize) -> String {
    let from = column.saturating_sub(33);
    let part: String = text.chars().skip(from).take(60).collect();
    format!("\n{part}\n{}^\nERROR at Row:1:Column:{column}\n", " ".repeat(column.saturating_sub(1 + from)))
}

impl Org {
    /// Reads and checks a statement.
    pub(crate) fn bind(&self, text: &str) -> Handled<Bound> {
        let query = parse(text).map_err(|error| malformed(text, &error))?;
        let Some(table) = self.table_at(&query.from) else {
            return Err(ApiError::bad(
                "INVALID_TYPE",
                format!(
                    "{}sObject type '{}' is not supported. If you are attempting to use a custom object, be sure to append the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate names.",
                    pointer(text, query.from_column),
                    query.from
                ),
            ));
        };
        self.bind_query(table, &query)
    }

    fn bind_query(&self, table: usize, query: &Query) -> Handled<Bound> {
        if query.offset.is_some_and(|offset| offset > OFFSET_MAX) {
            return Err(ApiError::bad("NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000"));
        }
        let columns = query.fields.iter().map(|path| self.path(table, path)).collect::<Handled<Vec<_>>>()?;
        let mut seen = HashSet::new();
        if let Some(twice) = query.fields.iter().find(|path| !seen.insert(path.to_lowercase())) {
            return Err(ApiError::bad("INVALID_FIELD", format!("duplicate field selected: {twice}")));
        }
        let filter = query.filter.as_ref().map(|filter| self.test(table, filter)).transpose()?;
        let order = (query.order.iter())
            .map(|order| Ok((self.path(table, &order.path)?, order.descending, order.nulls_last)))
            .collect::<Handled<Vec<_>>>()?;
        let ids = filter.as_ref().and_then(asked_ids);
        Ok(Bound { table, columns, filter, order, limit: query.limit, offset: query.offset.unwrap_or(0), ids })
    }

    fn path(&self, table: usize, text: &str) -> Handled<Path> {
        let mut steps = Vec::new();
        let mut at = table;
        let mut parts: Vec<&str> = text.split('.').collect();
        // The object's own name may stand in front.
        if parts.len() > 1 && self.tables[at].kind.name.eq_ignore_ascii_case(parts[0]) {
            let own = self.tables[at].kind.fields.iter();
            if !own.filter_map(|field| field.relationship.as_deref()).any(|name| name.eq_ignore_ascii_case(parts[0])) {
                parts.remove(0);
            }
        }
        let Some((last, parents)) = parts.split_last() else { return Err(no_column(text, "")) };
        if parents.len() > PARENTS_MAX {
            return Err(ApiError::bad("INVALID_FIELD", "more than 5 levels of parents"));
        }
        for parent in parents {
            let found =
                self.tables[at].kind.fields.iter().position(|field| {
                    field.relationship.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(parent))
                });
            let to = found
                .and_then(|field| self.tables[at].kind.fields[field].reference_to.first())
                .and_then(|name| self.table_at(name));
            let (Some(field), Some(to)) = (found, to) else {
                return Err(ApiError::bad(
                    "INVALID_FIELD",
                    format!(
                        "Didn't understand relationship '{parent}' in field path. If you are attempting to use a custom relationship, be sure to append the '__r' after the custom relationship name."
                    ),
                ));
            };
            steps.push((at, field));
            at = to;
        }
        let own = &self.tables[at];
        let found = own.at(last).filter(|field| !self.is_hidden(at, *field));
        let Some(field) = found else { return Err(no_column(last, &own.kind.name)) };
        steps.push((at, field));
        let definition = &own.kind.fields[field];
        Ok(Path { steps, kind: definition.kind, case_sensitive: definition.case_sensitive })
    }

    fn test(&self, table: usize, expr: &Expr) -> Handled<Test> {
        Ok(match expr {
            Expr::And(all) => Test::And(all.iter().map(|one| self.test(table, one)).collect::<Handled<_>>()?),
            Expr::Or(all) => Test::Or(all.iter().map(|one| self.test(table, one)).collect::<Handled<_>>()?),
            Expr::Not(one) => Test::Not(Box::new(self.test(table, one)?)),
            Expr::In { path: text, values, negated } => {
                let path = self.path(table, text)?;
                let mut set = HashSet::new();
                let mut null = false;
                for value in values {
                    match literal(&path, text, value)? {
                        Some(cell) => {
                            set.insert(path.key(&cell));
                        }
                        None => null = true,
                    }
                }
                Test::In { path, values: set, null, negated: *negated }
            }
            Expr::Compare { path: text, op, value } => {
                let path = self.path(table, text)?;
                if *op == Op::Like {
                    let Literal::Pattern(pattern) = value else { return Err(wrong_type(text, &path)) };
                    if !path.kind.is_text() || matches!(path.kind, FieldType::Id | FieldType::Reference) {
                        return Err(ApiError::bad(
                            "INVALID_QUERY_FILTER_OPERATOR",
                            format!("invalid operator on {text}"),
                        ));
                    }
                    return Ok(Test::Like(path, folded(pattern)));
                }
                match (literal(&path, text, value)?, op) {
                    (None, Op::Eq) => Test::Null(path, true),
                    (None, Op::Ne) => Test::Null(path, false),
                    (None, _) => {
                        return Err(ApiError::bad("INVALID_QUERY_FILTER_OPERATOR", format!("null on {text}")));
                    }
                    (Some(cell), op) => Test::Compare(path, *op, cell),
                }
            }
        })
    }

    /// The ids that match, in order, and how many there are.
    pub(crate) fn run(&self, bound: &Bound, all: bool, now: i64) -> Vec<String> {
        let table = &self.tables[bound.table];
        let matches = |cells: &Cells| {
            (all || cells.get(IS_DELETED) != Some(&Some(Cell::Bool(true))))
                && bound.filter.as_ref().is_none_or(|test| self.holds(test, cells, now))
        };
        let mut found: Vec<(&str, &Cells)> = match &bound.ids {
            Some(ids) => (ids.iter())
                .filter_map(|id| table.records.get(id))
                .filter_map(|record| Some((record.id.as_str(), record.seen_by_query(now)?)))
                .filter(|(_, cells)| matches(cells))
                .collect(),
            None => (table.records.values())
                .filter_map(|record| Some((record.id.as_str(), record.seen_by_query(now)?)))
                .filter(|(_, cells)| matches(cells))
                .collect(),
        };
        if !bound.order.is_empty() {
            let keys = |cells: &Cells| -> Vec<Option<Cell>> {
                bound.order.iter().map(|(path, _, _)| self.reach(path, cells, now)).collect()
            };
            let mut keyed: Vec<_> = found.into_iter().map(|(id, cells)| (keys(cells), id, cells)).collect();
            keyed.sort_by(|left, right| {
                for ((path, descending, nulls_last), (a, b)) in bound.order.iter().zip(left.0.iter().zip(&right.0)) {
                    let order = match (a, b) {
                        (None, None) => Ordering::Equal,
                        (None, Some(_)) if *nulls_last => return Ordering::Greater,
                        (None, Some(_)) => return Ordering::Less,
                        (Some(_), None) if *nulls_last => return Ordering::Less,
                        (Some(_), None) => return Ordering::Greater,
                        (Some(a), Some(b)) => path.compare(a, b),
                    };
                    let order = if *descending { order.reverse() } else { order };
                    if order.is_ne() {
                        return order;
                    }
                }
                Ordering::Equal
            });
            found = keyed.into_iter().map(|(_, id, cells)| (id, cells)).collect();
        }
        let taken = found.into_iter().skip(bound.offset).take(bound.limit.unwrap_or(usize::MAX));
        taken.map(|(id, _)| id.to_owned()).collect()
    }

    /// The value at the end of a path.
    pub(crate) fn reach(&self, path: &Path, cells: &Cells, now: i64) -> Option<Cell> {
        let (last, parents) = path.steps.split_last()?;
        let mut cells = cells;
        for (step, next) in parents.iter().zip(path.steps.iter().skip(1)) {
            let id = cells.get(step.1)?.as_ref()?.text()?;
            cells = self.tables[next.0].records.get(id).filter(|record| !record.is_deleted())?.seen_by_query(now)?;
        }
        self.tables[last.0].value(cells, last.1)
    }

    fn holds(&self, test: &Test, cells: &Cells, now: i64) -> bool {
        match test {
            Test::And(all) => all.iter().all(|one| self.holds(one, cells, now)),
            Test::Or(all) => all.iter().any(|one| self.holds(one, cells, now)),
            Test::Not(one) => !self.holds(one, cells, now),
            Test::Null(path, wanted) => self.reach(path, cells, now).is_none() == *wanted,
            Test::Compare(path, op, value) => match self.reach(path, cells, now) {
                // Blank is different from any value, and neither more nor less.
                None => *op == Op::Ne,
                Some(cell) => {
                    let order = path.compare(&cell, value);
                    match op {
                        Op::Eq | Op::Like => order.is_eq(),
                        Op::Ne => order.is_ne(),
                        Op::Lt => order.is_lt(),
                        Op::Le => order.is_le(),
                        Op::Gt => order.is_gt(),
                        Op::Ge => order.is_ge(),
                    }
                }
            },
            Test::Like(path, pattern) => self.reach(path, cells, now).is_some_and(|cell| {
                let text: Vec<char> = fold(&cell.plain(), path.case_sensitive).chars().collect();
                like(pattern, &text)
            }),
            Test::In { path, values, null, negated } => {
                let found = match self.reach(path, cells, now) {
                    None => *null,
                    Some(cell) => values.contains(&path.key(&cell)),
                };
                found != *negated
            }
        }
    }
}

impl Path {
    fn key(&self, cell: &Cell) -> String {
        match self.kind {
            FieldType::Id | FieldType::Reference => {
                let text = cell.plain();
                ids::full(&text).unwrap_or(text)
            }
            _ => fold(&cell.plain(), self.case_sensitive),
        }
    }

    fn compare(&self, left: &Cell, right: &Cell) -> Ordering {
        match (left, right) {
            (Cell::Number(a), Cell::Number(b)) => a.total_cmp(b),
            (Cell::Time(a), Cell::Time(b)) => a.cmp(b),
            (Cell::Bool(a), Cell::Bool(b)) => a.cmp(b),
            // Stored ids are whole.
            (Cell::Text(a), Cell::Text(b))
                if matches!(self.kind, FieldType::Id | FieldType::Reference) && a.len() == b.len() =>
            {
                a.cmp(b)
            }
            _ => self.key(left).cmp(&self.key(right)),
        }
    }
}

fn no_column(name: &str, object: &str) -> Box<ApiError> {
    ApiError::bad("INVALID_FIELD", format!("No such column '{name}' on sobject of type {object}"))
}

fn wrong_type(name: &str, path: &Path) -> Box<ApiError> {
    let (kind, quoted) = match path.kind {
        FieldType::DateTime => ("dateTime", "should not"),
        kind if kind.is_text() => (kind.name(), "should"),
        kind => (kind.name(), "should not"),
    };
    ApiError::bad(
        "INVALID_FIELD",
        format!(
            "value of filter criterion for field '{name}' must be of type {kind} and {quoted} be enclosed in quotes"
        ),
    )
}

/// A literal as a value of the path's type.
fn literal(path: &Path, name: &str, value: &Literal) -> Handled<Option<Cell>> {
    Ok(Some(match (value, path.kind) {
        (Literal::Null, _) => return Ok(None),
        (Literal::Text(text), FieldType::Id | FieldType::Reference) => match ids::full(text) {
            Some(id) => Cell::Text(id),
            None => {
                return Err(ApiError::bad(
                    "INVALID_QUERY_FILTER_OPERATOR",
                    format!("{name}: invalid ID field: {text}"),
                ));
            }
        },
        (Literal::Text(text), kind) if kind.is_text() => Cell::Text(text.clone()),
        (Literal::Number(number), kind) if kind.is_number() => Cell::Number(*number),
        (Literal::Bool(value), FieldType::Boolean) => Cell::Bool(*value),
        (Literal::Date(day), FieldType::Date) => Cell::Text(day.clone()),
        // What is stored has whole seconds; a literal may have more.
        (Literal::DateTime(ms), FieldType::DateTime) => Cell::Time(*ms),
        _ => return Err(wrong_type(name, path)),
    }))
}

fn asked_ids(test: &Test) -> Option<Vec<String>> {
    let own = |path: &Path| path.steps.len() == 1 && path.steps[0].1 == ID;
    match test {
        Test::And(all) => all.iter().find_map(asked_ids),
        Test::Compare(path, Op::Eq, cell) if own(path) => Some(vec![cell.plain()]),
        Test::In { path, values, null: false, negated: false } if own(path) => {
            let mut ids: Vec<String> = values.iter().cloned().collect();
            ids.sort();
            Some(ids)
        }
        _ => None,
    }
}

fn folded(pattern: &[Piece]) -> Vec<Piece> {
    (pattern.iter().cloned())
        .flat_map(|piece| match piece {
            Piece::Letter(letter) => letter.to_lowercase().map(Piece::Letter).collect(),
            wild => vec![wild],
        })
        .collect()
}

fn like(pattern: &[Piece], text: &[char]) -> bool {
    // Greedy with one step back to the last `%`: linear enough, and no recursion.
    let (mut at, mut from, mut back) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some(Piece::Any) => {
                back = Some((at + 1, from));
                at += 1;
            }
            Some(Piece::One) => {
                at += 1;
                from += 1;
            }
            Some(Piece::Letter(letter)) if *letter == text[from] => {
                at += 1;
                from += 1;
            }
            _ => match back {
                Some((after, start)) => {
                    at = after;
                    from = start + 1;
                    back = Some((after, start + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|piece| *piece == Piece::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_knows_its_wildcards_and_their_escapes() {
        let matches = |pattern: &str, text: &str| {
            let query = parse(&format!("SELECT Id FROM C WHERE A LIKE '{pattern}'")).unwrap();
            let Some(Expr::Compare { value: Literal::Pattern(pieces), .. }) = query.filter else { panic!() };
            like(&folded(&pieces), &text.to_lowercase().chars().collect::<Vec<_>>())
        };
        assert!(matches("a%c", "AbbC") && matches("%", "") && matches("a_c", "abc") && matches("50\\%", "50%"));
        assert!(!matches("50\\%", "500") && !matches("a_c", "ac") && !matches("a", "ab"));
        assert!(matches("%b%d", "abcbcd"));
    }
}
