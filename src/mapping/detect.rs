//! What a file's first rows tell about how its dates and numbers are written.
//!
//! A run that is continued must read the rest of the file as it read the beginning: what was detected is part of the run's
//! state, and of its report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    dates::{self, DateOrder},
    numbers::{self, NumberStyle},
};
use crate::csv::Cells;

/// How the columns of a file write dates and numbers, by column name. Columns that tell nothing are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Detected {
    /// By the column's name, trimmed.
    pub columns: BTreeMap<String, DetectedColumn>,
}

/// How one column writes dates and numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectedColumn {
    /// The order of numeric dates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<DateOrder>,
    /// The decimal mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<NumberStyle>,
}

impl DetectedColumn {
    /// Adds what a trimmed cell gives away.
    pub(crate) fn observe(&mut self, cell: &str) {
        self.date = DateOrder::join(self.date, dates::evidence(cell));
        self.number = NumberStyle::join(self.number, numbers::evidence(cell));
    }
}

/// What the sample `rows` tell about the columns of `header`. The more rows, the fewer cells are refused as ambiguous.
pub fn detect(header: &[String], rows: &[Cells]) -> Detected {
    let mut columns = vec![DetectedColumn::default(); header.len()];
    for row in rows {
        for (column, cell) in columns.iter_mut().zip(row.iter()) {
            column.observe(cell.trim());
        }
    }
    let told = header.iter().zip(columns).filter(|(_, column)| *column != DetectedColumn::default());
    Detected { columns: told.map(|(name, column)| (name.trim().to_owned(), column)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Cells> {
        rows.iter().map(|row| row.iter().collect()).collect()
    }

    #[test]
    fn each_column_is_judged_by_its_own_cells() {
        let header = [" Signed up ", "Closed", "Amount", "Name", "Mixed"].map(String::from);
        let rows = rows(&[
            &["01/02/2024", "01/02/2024", "1.234", "Ada", "31/12/2024"],
            &["31/12/2024", "12/31/2024", "1,5", "1st", "12/31/2024"],
            &["", "x"],
        ]);
        let detected = detect(&header, &rows);
        assert_eq!(
            serde_json::to_value(&detected).unwrap(),
            serde_json::json!({
                "Signed up": {"date": "day_first"},
                "Closed": {"date": "month_first"},
                "Amount": {"number": "comma"},
                "Mixed": {"date": "mixed"},
            })
        );
    }

    #[test]
    fn what_was_detected_survives_storing() {
        let detected = detect(&["d".to_owned()], &rows(&[&["31/12/2024"]]));
        let stored = serde_json::to_string(&detected).unwrap();
        assert_eq!(serde_json::from_str::<Detected>(&stored).unwrap(), detected);
    }
}
