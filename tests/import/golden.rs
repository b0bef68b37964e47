//! One small file, and everything that becomes of it, letter by letter: the requests, the rejects, the report.
//!
//! Time, chance and HubSpot are the same in each run, so that every difference is a change of behaviour. Accept one with
//! `INSTA_UPDATE=always cargo test --test main golden`.

use crate::support::{World, contacts};

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_small_file() {
    let world = World::new(&contacts(
        "columns:\n  Mail: email\n  Name: { property: firstname, blank: clear }\n  Stage: lifecyclestage\n  Born: { property: date_of_birth, date: \"%d.%m.%Y\" }",
    ));
    let file = "Mail;Name;Stage;Born;Note\n\
        Ada@X.io; Ada ;Lead;10.12.1815;first\n\
        ada@x.io;;Customer;;again\n\
        bob@x.io;\"Bob; \"\"B\"\"\";Leed;01.02.1990;label\n\
        =cmd;Cyd;Lead;;formula\n\
        dan@x.io;Dan\n\
        eve@x.io;Eve;lead;31.02.1990;date\n\
        fay@x.io;Fay;;29.02.2000;\n";
    let report = world.import("incoming/contacts/small.csv", file).await;
    let requests =
        world.requests.borrow().iter().filter(|request| request.starts_with("POST")).cloned().collect::<Vec<_>>();
    insta::assert_snapshot!("requests", requests.join("\n"));
    insta::assert_snapshot!("rejects", world.text(report.rejects.as_deref().unwrap()).unwrap());
    insta::assert_snapshot!("report", serde_json::to_string_pretty(&report).unwrap());
}
