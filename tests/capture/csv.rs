//! The CSV file of a capture, dropped into another account.

use std::rc::Rc;

use hubferry::{
    capture::{
        change::{Change, Operation},
        output::{Columns, Layout},
    },
    config::{CaptureFormat, Compression},
    hubspot::model::PropertyDefinition,
    report::Outcome,
};
use serde_json::json;

use crate::support::{World, contacts};

#[tokio::test(start_paused = true)]
async fn what_a_capture_wrote_as_csv_imports_as_it_was() {
    // GIVEN the captured contact whose names a spreadsheet would run, or could not hold on one line
    let definitions = ["email", "firstname", "lastname"].map(|name| PropertyDefinition {
        name: name.to_owned(),
        kind: "string".to_owned(),
        ..PropertyDefinition::default()
    });
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let layout = Layout {
            format: CaptureFormat::Csv,
            compression,
            collection: "crm.contacts".to_owned(),
            columns: Rc::new(Columns::new(&definitions)),
        };
        let after =
            json!({"id": "1", "properties": {"email": "ada@x.io", "firstname": "=1+1", "lastname": "'=\"L\",\nß🦀"}});
        let mut encoder = layout.encoder().unwrap();
        encoder
            .push(&Change {
                operation: Operation::Snapshot,
                cause: None,
                id: "1".to_owned(),
                created_at: None,
                updated_at: None,
                read_at: "2026-01-02T03:05:00Z".parse().unwrap(),
                before: None,
                after: after.as_object().cloned(),
                position: "{}".to_owned(),
            })
            .unwrap();
        // WHEN the file lands where contacts are imported from
        let world = World::new(&contacts("columns: { email: email, firstname: firstname, lastname: lastname }"));
        let report =
            world.import(&format!("incoming/contacts/a.{}", layout.extension()), encoder.finish().unwrap()).await;
        // THEN the contact is what it was
        assert_eq!((report.outcome, report.rows.created), (Outcome::Done, 1), "{report:?}");
        assert_eq!(world.contact("ada@x.io", "firstname").as_deref(), Some("=1+1"));
        assert_eq!(world.contact("ada@x.io", "lastname").as_deref(), Some("'=\"L\",\nß🦀"));
    }
}
