//! What bad input gets: an outcome, counts, and rejects that name line, column and code, never the value. HubSpot holds
//! exactly the rows that were right.

use hubferry::report::{Outcome, Report};
use hubferry_simulator::hubspot::{CustomObject, PortalSettings, PropertyDefinition};

use crate::support::{World, contacts};

/// A cell that is wrong wherever it stands; no reason or hint may hold it.
const WRONG: &str = "Zanzibar";

/// A row of a rejects file.
#[derive(Debug)]
struct Rejected {
    line: u64,
    code: String,
    reason: String,
    hint: String,
}

/// A world after one import.
struct Ran {
    world: World,
    report: Report,
    rejects: Vec<Rejected>,
}

impl Ran {
    /// `read, created, rejected`, after checking that the rejects file, the counts by code and HubSpot agree with them.
    fn counts(&self) -> (u64, u64, u64) {
        let rows = self.report.rows;
        assert!(rows.add_up(), "{rows:?}");
        assert_eq!(self.rejects.len() as u64, rows.rejected + rows.deferred, "{:?}", self.rejects);
        assert_eq!(self.report.rejected_by_code.values().sum::<u64>(), rows.rejected);
        (rows.read, rows.created, rows.rejected)
    }

    fn codes(&self) -> Vec<(u64, &str)> {
        self.rejects.iter().map(|reject| (reject.line, reject.code.as_str())).collect()
    }

    fn contacts(&self) -> usize {
        self.world.portal.borrow().record_count("contacts")
    }

    fn contact(&self, email: &str, property: &str) -> Option<String> {
        self.world.contact(email, property)
    }

    /// Code and message of an import of which nothing was written.
    #[track_caller]
    fn invalid(&self) -> (&str, &str) {
        assert_eq!(self.report.outcome, Outcome::Invalid, "{:?}", self.report);
        assert_eq!((self.report.rows.read, self.contacts()), (0, 0));
        assert_eq!(self.report.rejects, None);
        let error = self.report.error.as_ref().unwrap();
        assert!(!error.hint.is_empty());
        (&error.code, &error.message)
    }
}

async fn import_into(world: World, bytes: impl Into<bytes::Bytes>) -> Ran {
    let report = world.import("incoming/contacts/people.csv", bytes).await;
    let text = report.rejects.as_deref().map(|uri| world.text(uri).unwrap()).unwrap_or_default();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let rejects: Vec<Rejected> = reader
        .records()
        .map(|row| {
            let row = row.unwrap();
            Rejected {
                line: row[at("_line")].parse().unwrap(),
                code: row[at("_code")].to_owned(),
                reason: row[at("_reason")].to_owned(),
                hint: row[at("_hint")].to_owned(),
            }
        })
        .collect();
    for reject in &rejects {
        let text = format!("{} {}", reject.reason, reject.hint);
        assert!(!text.contains(WRONG), "a value is told: {text}");
        assert!(!reject.reason.is_empty() && !reject.hint.is_empty(), "{reject:?}");
    }
    Ran { world, report, rejects }
}

async fn import(bytes: impl Into<bytes::Bytes>) -> Ran {
    import_into(World::new(&contacts("")), bytes).await
}

/// A world whose contacts have a number, a yes/no, a list and a moment of the account's own.
fn typed() -> World {
    let mut settings = PortalSettings::default();
    settings.properties.insert(
        "contacts".to_owned(),
        vec![
            PropertyDefinition::new("score", "number"),
            PropertyDefinition::new("vip", "bool"),
            PropertyDefinition::new("met_at", "datetime"),
            PropertyDefinition::new("topics", "enumeration").options(&["Rust", "Go", "Zig"]).several(),
        ],
    );
    World::with(&contacts(""), settings)
}

fn utf16(text: &str, big_endian: bool, bom: bool) -> Vec<u8> {
    let units = bom.then_some(0xfeff).into_iter().chain(text.encode_utf16());
    units.flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

#[tokio::test(start_paused = true)]
async fn a_png_a_zip_and_a_workbook_are_named_and_nothing_is_written() {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend((0..4_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
    let zip = b"PK\x03\x04\x14\0\0\0\x08\0people.csv\x13\x37\0\x01binary".to_vec();
    let xlsx = b"PK\x03\x04\x14\0\x06\0[Content_Types].xml....xl/workbook.xml\0\x01".to_vec();
    for (bytes, kind) in [(png, "a PNG image"), (zip, "a zip archive"), (xlsx, "an Excel workbook")] {
        let ran = import(bytes).await;
        let (code, message) = ran.invalid();
        assert_eq!(code, "SOURCE_NOT_TABULAR");
        assert!(message.contains(kind) && message.contains("incoming/contacts/people.csv"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn binary_data_without_a_signature_is_not_taken_for_text() {
    let ran = import((0..5_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>()).await;
    assert_eq!(ran.invalid().0, "SOURCE_NOT_TABULAR");
}

#[tokio::test(start_paused = true)]
async fn a_header_without_the_key_column_gets_the_nearest_one_suggested() {
    let ran = import("E-mail,First Name\na@x.io,Ada\n").await;
    let (code, message) = ran.invalid();
    assert_eq!(code, "KEY_COLUMN_MISSING");
    assert!(message.contains("Is it `E-mail`?") && message.contains("`First Name`"), "{message}");

    let ran = import_into(
        World::new(&contacts("columns: { Email Address: email, Name: firstname }")),
        "Email Adress,Name\na@x.io,Ada\n",
    )
    .await;
    let (code, message) = ran.invalid();
    assert_eq!(code, "KEY_COLUMN_MISSING");
    assert!(message.contains("`Email Address`") && message.contains("Is it `Email Adress`?"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn two_columns_for_one_property_are_both_named() {
    for header in ["email,First Name,firstname", "email,FirstName,First Name"] {
        let ran = import(format!("{header}\na@x.io,Ada,Bea\n")).await;
        let (code, message) = ran.invalid();
        assert_eq!(code, "DUPLICATE_PROPERTY");
        for column in header.split(',').skip(1) {
            assert!(message.contains(&format!("`{column}`")), "{message}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_is_a_done_run_of_no_rows_without_a_call() {
    let ran = import("").await;
    assert_eq!((ran.report.outcome, ran.counts()), (Outcome::Done, (0, 0, 0)));
    assert!(ran.report.notes[0].contains("nothing to do"), "{:?}", ran.report.notes);
    assert_eq!(ran.world.portal.borrow().counts().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_header_alone_is_a_done_run_of_no_rows() {
    for text in ["email,firstname", "email,firstname\r\n", "\u{feff}email;firstname\n\n\n"] {
        let ran = import(text).await;
        assert_eq!((ran.report.outcome, ran.counts(), ran.contacts()), (Outcome::Done, (0, 0, 0), 0), "{text:?}");
        assert_eq!(ran.report.error, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_of_a_megabyte_is_a_reject_and_the_rest_goes_on() {
    let long = "x".repeat(1_000_001);
    let broken = format!("{}\"{}", "y".repeat(10), "z".repeat(80_000));
    let text = format!("email,firstname\na@x.io,Ada\nb@x.io,{long}\nc@x.io,Cleo\nd@x.io,{broken}\ne@x.io,Eve\n");
    let ran = import(text).await;
    assert_eq!((ran.report.outcome, ran.counts()), (Outcome::Done, (5, 3, 2)));
    assert_eq!(ran.codes(), [(3, "ROW_TOO_LARGE"), (5, "VALUE_TOO_LONG")]);
    assert!(ran.rejects[1].reason.contains("`firstname`"), "{:?}", ran.rejects[1]);
    assert_eq!(ran.contact("e@x.io", "firstname").as_deref(), Some("Eve"));
    assert_eq!(ran.contacts(), 3);
}

#[tokio::test(start_paused = true)]
async fn nul_bytes_reject_their_row_only() {
    let ran = import("email,firstname\na@x.io,Ada\nb@x.io,Zan\0zibar\nc@x.io,Cleo\n").await;
    assert_eq!(
        (ran.report.outcome, ran.counts(), ran.codes()),
        (Outcome::Done, (3, 2, 1), vec![(3, "CONTROL_CHARACTER")])
    );
    assert_eq!((ran.contacts(), ran.contact("b@x.io", "email")), (2, None));
}

#[tokio::test(start_paused = true)]
async fn invalid_utf8_in_the_middle_rejects_its_row_only() {
    // Beyond what is looked at to tell the encoding.
    let mut file = b"email,firstname\n".to_vec();
    for number in 0..20_000 {
        file.extend(format!("person{number}@example.com,").bytes());
        file.extend(if number == 15_000 { &b"Ren\xe9"[..] } else { "René".as_bytes() });
        file.push(b'\n');
    }
    let ran = import(file).await;
    assert_eq!((ran.report.outcome, ran.counts()), (Outcome::Done, (20_000, 19_999, 1)));
    assert_eq!(ran.codes(), [(15_002, "INVALID_ENCODING")]);
    assert_eq!(ran.contact("person14999@example.com", "firstname").as_deref(), Some("René"));
    assert_eq!(ran.contact("person15000@example.com", "email"), None);

    // Within it, in a file that is otherwise plainly UTF-8.
    let mut file = format!("email,firstname\n{}", "").into_bytes();
    for number in 0..20 {
        file.extend(format!("p{number}@example.com,Žofie\n").bytes());
    }
    file.extend(b"bad@example.com,Zo\xc5\nlast@example.com,Ok\n");
    let ran = import(file).await;
    assert_eq!((ran.counts(), ran.codes()), ((22, 21, 1), vec![(22, "INVALID_ENCODING")]));
}

#[tokio::test(start_paused = true)]
async fn two_thousand_columns_are_refused_with_their_number() {
    let header: Vec<String> = (0..2_000).map(|number| format!("column{number}")).collect();
    let ran = import(format!("email,{}\na@x.io\n", header.join(","))).await;
    let (code, message) = ran.invalid();
    assert_eq!(code, "TOO_MANY_COLUMNS");
    assert!(message.contains("2001") && message.contains("1000"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_lone_quote_on_the_last_line_costs_that_line() {
    let ran = import("email,firstname\na@x.io,Ada\nb@x.io,\"Zanzibar").await;
    assert_eq!((ran.report.outcome, ran.counts()), (Outcome::Done, (2, 1, 1)));
    assert_eq!((ran.codes(), ran.contacts()), (vec![(3, "UNTERMINATED_QUOTE")], 1));
}

#[tokio::test(start_paused = true)]
async fn a_stray_quote_in_the_middle_costs_its_line_and_swallows_nothing() {
    let ran = import("email,firstname\na@x.io,\"Ada\nb@x.io,Bea\nc@x.io,\"Cleo\" x\nd@x.io,Dan\n").await;
    // The quote of line 2 is closed by the one of line 4, behind which text follows.
    assert_eq!(ran.counts(), (4, 2, 2), "{:?}", ran.rejects);
    assert_eq!(ran.codes().iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(ran.contact("b@x.io", "firstname").as_deref(), Some("Bea"));
    assert_eq!(ran.contact("d@x.io", "firstname").as_deref(), Some("Dan"));
}

#[tokio::test(start_paused = true)]
async fn ragged_rows_are_rejects_and_trailing_empty_cells_are_not() {
    let ran =
        import("email,firstname,lastname\na@x.io,Ada,L,\nb@x.io,Bea\nc@x.io,Cleo,L,Zanzibar\nd@x.io,Dan,L\n").await;
    assert_eq!((ran.counts(), ran.codes()), ((4, 2, 2), vec![(3, "RAGGED_ROW"), (4, "RAGGED_ROW")]));
    assert_eq!(ran.contacts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_and_spaces_around_cells_are_no_part_of_the_data() {
    let ran = import("\u{feff}email , First Name,Company Name\r\n A@X.io ,  Ada ,  Lotr Unlimited \r\n").await;
    assert_eq!((ran.report.outcome, ran.counts()), (Outcome::Done, (1, 1, 0)), "{:?}", ran.report);
    assert_eq!(ran.contact("a@x.io", "firstname").as_deref(), Some("Ada"));
    assert_eq!(ran.contact("a@x.io", "company").as_deref(), Some("Lotr Unlimited"));
}

#[tokio::test(start_paused = true)]
async fn columns_in_another_order_mean_the_same() {
    let one = import("email,firstname,lastname\na@x.io,Ada,Lovelace\n").await;
    let other = import("lastname,email,firstname\nLovelace,a@x.io,Ada\n").await;
    assert_eq!(other.counts(), (1, 1, 0));
    assert_eq!(one.world.portal.borrow().state(), other.world.portal.borrow().state());
}

#[tokio::test(start_paused = true)]
async fn whatever_the_encoding_delimiter_and_line_end_the_records_are_the_same() {
    let text = "email,firstname,lastname\na@x.io,Zoë,\"Müller, Dr\"\nb@x.io,Bea,\"two\nlines\"\nc@x.io,Zanzibar\nd@x.io,Dan,D\n";
    let plain = import(text).await;
    assert_eq!((plain.counts(), plain.codes()), ((4, 3, 1), vec![(5, "RAGGED_ROW")]));
    let expected = plain.world.portal.borrow().state();
    let other_line_end =
        |end: &str| text.replace("two\nlines", "two|lines").replace('\n', end).replace("two|lines", "two\nlines");
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("UTF-8 with a mark", format!("\u{feff}{text}").into_bytes()),
        ("UTF-16 LE", utf16(text, false, true)),
        ("UTF-16 BE", utf16(text, true, true)),
        ("UTF-16 LE without a mark", utf16(text, false, false)),
        ("UTF-16 BE without a mark", utf16(text, true, false)),
        ("Windows-1252", text.chars().map(|c| c as u8).collect()),
        ("CRLF", other_line_end("\r\n").into_bytes()),
        ("CR", other_line_end("\r").into_bytes()),
        (
            "semicolons",
            text.replace("Müller, Dr", "MüllerX Dr").replace(',', ";").replace("MüllerX", "Müller,").into_bytes(),
        ),
        (
            "tabs",
            text.replace("Müller, Dr", "MüllerX Dr").replace(',', "\t").replace("MüllerX", "Müller,").into_bytes(),
        ),
        ("no last line end", text.trim_end().as_bytes().to_vec()),
    ];
    for (name, bytes) in files {
        let ran = import(bytes).await;
        assert_eq!((ran.counts(), ran.codes()), ((4, 3, 1), vec![(5, "RAGGED_ROW")]), "{name}: {:?}", ran.report);
        assert_eq!(ran.world.portal.borrow().state(), expected, "{name}");
        assert!(ran.report.source.dialect.is_some(), "{name}: what was detected is in the report");
    }
}

#[tokio::test(start_paused = true)]
async fn the_line_of_a_reject_counts_line_ends_within_quotes_and_blank_lines() {
    let ran =
        import("email,firstname\na@x.io,\"A\nB\nC\"\n\nZanzibar,Bea\r\n\r\nc@x.io,\"C\r\nD\"\nZanzibar,Eve\n").await;
    assert_eq!((ran.counts(), ran.codes()), ((4, 2, 2), vec![(6, "INVALID_EMAIL"), (10, "INVALID_EMAIL")]));
    assert!(ran.rejects.iter().all(|reject| reject.reason.contains("column `email`")), "{:?}", ran.rejects);
}

#[tokio::test(start_paused = true)]
async fn the_order_of_day_and_month_is_told_from_the_column() {
    let day_first = import("email,Date of birth\na@x.io,31/12/1990\nb@x.io,01/02/1990\nc@x.io,1.3.1990\n").await;
    assert_eq!(day_first.counts(), (3, 3, 0), "{:?}", day_first.rejects);
    let month_first = import("email,Date of birth\na@x.io,12/31/1990\nb@x.io,01/02/1990\nc@x.io,1990-03-01\n").await;
    assert_eq!(month_first.counts(), (3, 3, 0), "{:?}", month_first.rejects);
    let born = |ran: &Ran, email| ran.contact(email, "date_of_birth").unwrap();
    assert_eq!(
        ["a@x.io", "b@x.io", "c@x.io"].map(|email| born(&day_first, email)),
        ["1990-12-31", "1990-02-01", "1990-03-01"]
    );
    assert_eq!(
        ["a@x.io", "b@x.io", "c@x.io"].map(|email| born(&month_first, email)),
        ["1990-12-31", "1990-01-02", "1990-03-01"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_date_that_may_be_read_in_two_ways_is_rejected_and_the_format_asked_for() {
    let ran =
        import("email,Date of birth\na@x.io,01/02/1990\nb@x.io,1990-02-30\nc@x.io,Zanzibar\nd@x.io,45292\n").await;
    assert_eq!(ran.counts(), (4, 0, 4));
    assert!(
        ran.rejects.iter().all(|reject| reject.code == "INVALID_DATE" && reject.reason.contains("`Date of birth`"))
    );
    assert!(ran.rejects[0].hint.contains("%d/%m/%Y"), "{:?}", ran.rejects[0]);
    assert!(ran.rejects[1].reason.contains("does not exist"), "{:?}", ran.rejects[1]);
    assert!(ran.rejects[3].reason.contains("day count"), "{:?}", ran.rejects[3]);

    let world =
        World::new(&contacts("columns: { email: email, born: { property: date_of_birth, date: \"%m/%d/%Y\" } }"));
    let ran = import_into(world, "email,born\na@x.io,01/02/1990\n").await;
    assert_eq!(ran.contact("a@x.io", "date_of_birth").as_deref(), Some("1990-01-02"));
}

#[tokio::test(start_paused = true)]
async fn numbers_are_read_as_their_column_writes_them() {
    let points =
        import_into(typed(), "email,score\na@x.io,\"1,234.50\"\nb@x.io,7\nc@x.io,Zanzibar\nd@x.io,50%\n").await;
    assert_eq!((points.counts(), points.codes()), ((4, 2, 2), vec![(4, "INVALID_LONG"), (5, "INVALID_LONG")]));
    let commas = import_into(typed(), "email;score\na@x.io;1.234,50\nb@x.io;7\n").await;
    assert_eq!(commas.counts(), (2, 2, 0), "{:?}", commas.rejects);
    for ran in [&points, &commas] {
        assert_eq!(ran.contact("a@x.io", "score").unwrap().parse::<f64>().unwrap(), 1234.5);
        assert_eq!(ran.contact("b@x.io", "score").as_deref(), Some("7"));
    }
}

#[tokio::test(start_paused = true)]
async fn yes_and_no_and_lists_become_what_hubspot_takes() {
    let ran = import_into(
        typed(),
        "email,vip,topics\na@x.io,Yes,\"Rust, zig\"\nb@x.io,0,Go\nc@x.io,Zanzibar,\nd@x.io,,Zanzibar;Go\n",
    )
    .await;
    assert_eq!((ran.counts(), ran.codes()), ((4, 2, 2), vec![(4, "INVALID_BOOLEAN"), (5, "INVALID_OPTION")]));
    assert_eq!(ran.contact("a@x.io", "vip").as_deref(), Some("true"));
    assert_eq!(ran.contact("a@x.io", "topics").as_deref(), Some("Rust;Zig"));
    assert_eq!(ran.contact("b@x.io", "vip").as_deref(), Some("false"));
}

#[tokio::test(start_paused = true)]
async fn option_labels_become_values_and_a_wrong_one_gets_the_nearest_in_its_hint() {
    let ran = import(
        "email,Lifecycle Stage\na@x.io,Marketing Qualified Lead\nb@x.io,OPPORTUNITY\nc@x.io,Oportunnity\nd@x.io,Zanzibar\n",
    )
    .await;
    assert_eq!((ran.counts(), ran.codes()), ((4, 2, 2), vec![(4, "INVALID_OPTION"), (5, "INVALID_OPTION")]));
    assert_eq!(ran.contact("a@x.io", "lifecyclestage").as_deref(), Some("marketingqualifiedlead"));
    assert_eq!(ran.contact("b@x.io", "lifecyclestage").as_deref(), Some("opportunity"));
    let near = &ran.rejects[0];
    assert!(near.hint.contains("Opportunity") && near.reason.contains("`Lifecycle Stage`"), "{near:?}");
    assert!(!near.reason.contains("Oportunnity") && !near.hint.contains("Oportunnity"), "{near:?}");
}

#[tokio::test(start_paused = true)]
async fn owners_are_found_by_their_address() {
    let ran = import("email,hubspot_owner_id\na@x.io,Alex@Example.com\nb@x.io,Sam Owner\nc@x.io,41001\nd@x.io,Zanzibar@example.com\n").await;
    assert_eq!((ran.counts(), ran.codes()), ((4, 3, 1), vec![(5, "INVALID_OWNER")]));
    let owner = |email| ran.contact(email, "hubspot_owner_id").unwrap();
    assert_eq!([owner("a@x.io"), owner("b@x.io"), owner("c@x.io")], ["41001", "41002", "41001"]);
}

#[tokio::test(start_paused = true)]
async fn deals_have_a_key_of_their_own_and_stages_by_label() {
    let mut settings = PortalSettings::default();
    settings.properties.insert("deals".to_owned(), vec![PropertyDefinition::new("deal_ref", "string").unique()]);
    let config = contacts("").replace("object: contacts", "object: deals").replace("key: email", "key: deal_ref");
    let world = World::with(&config, settings);
    let ran = import_into(
        world,
        "deal_ref,Deal Name,pipeline,dealstage,amount\n\
         D-1,One,Sales Pipeline,Closed Won,10\n\
         D-2,Two,Renewals,Renewed,20\n\
         D-3,Three,Renewals,Closed Won,30\n\
         D-4,Four,,Qualified to buy,40\n\
         D-5,Five,Zanzibar,Renewed,50\n",
    )
    .await;
    assert_eq!((ran.counts(), ran.codes()), ((5, 3, 2), vec![(4, "INVALID_STAGE"), (6, "INVALID_PIPELINE")]));
    assert!(ran.rejects[0].hint.contains("Renewed") || ran.rejects[0].hint.contains("Lost"), "{:?}", ran.rejects[0]);
    let portal = ran.world.portal.borrow();
    let deal = |reference: &str| portal.find_by("deals", "deal_ref", reference).unwrap();
    assert_eq!((deal("D-1")["pipeline"].as_str(), deal("D-1")["dealstage"].as_str()), ("default", "closedwon"));
    assert_eq!((deal("D-2")["pipeline"].as_str(), deal("D-2")["dealstage"].as_str()), ("8001", "80012"));
    assert_eq!(deal("D-4")["dealstage"], "qualifiedtobuy");
    assert_eq!(portal.record_count("deals"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_unique_is_refused_before_anything_is_written() {
    let config = contacts("").replace("object: contacts", "object: companies").replace("key: email", "key: name");
    let ran = import_into(World::new(&config), "name,city\nOne,Rome\n").await;
    assert_eq!(ran.invalid().0, "KEY_NOT_UNIQUE");
    assert_eq!(ran.world.portal.borrow().record_count("companies"), 0);
}

#[tokio::test(start_paused = true)]
async fn custom_objects_import_by_their_own_unique_property() {
    let machines = CustomObject {
        object_type_id: "2-3465404".to_owned(),
        name: "machines".to_owned(),
        properties: vec![
            PropertyDefinition::new("serial", "string").unique(),
            PropertyDefinition::new("power", "number"),
        ],
        required: vec!["serial".to_owned()],
        primary_display: "serial".to_owned(),
    };
    for object in ["machines", "2-3465404", "p62515_machines"] {
        let settings = PortalSettings { custom_objects: vec![machines.clone()], ..PortalSettings::default() };
        let config =
            contacts("").replace("object: contacts", &format!("object: {object}")).replace("key: email", "key: serial");
        let ran = import_into(World::with(&config, settings), "serial,power\nS1,5\ns1,6\nS2,Zanzibar\nS3,7\n").await;
        assert_eq!(ran.codes(), [(4, "INVALID_LONG")], "{object}: {:?}", ran.report);
        let portal = ran.world.portal.borrow();
        assert_eq!(portal.record_count("machines") as u64, ran.report.rows.created, "{object}: {:?}", ran.report.rows);
        assert_eq!(portal.find_by("machines", "serial", "S3").unwrap()["power"], "7");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_rejects_abort_the_run_and_leave_the_rejects_so_far() {
    let world = World::new(&contacts("abort_if_rejected: 20%"));
    let mut file = String::from("email,firstname\n");
    for number in 0..20_000 {
        let email = if number % 3 == 0 { WRONG.to_owned() } else { format!("p{number}@x.io") };
        file.push_str(&format!("{email},Ada\n"));
    }
    let ran = import_into(world, file).await;
    assert_eq!(ran.report.outcome, Outcome::Aborted);
    let error = ran.report.error.as_ref().unwrap();
    assert_eq!(error.code, "ABORT_IF_REJECTED");
    let (read, created, rejected) = ran.counts();
    assert!((1_000..10_000).contains(&read) && rejected > read / 5, "{:?}", ran.report.rows);
    assert!(error.message.contains(&rejected.to_string()), "{}", error.message);
    let lines: Vec<u64> = ran.rejects.iter().map(|reject| reject.line).collect();
    assert_eq!(lines, (0..rejected).map(|number| number * 3 + 2).collect::<Vec<_>>());
    // Everything that is in HubSpot is counted, and the other way round.
    assert_eq!(ran.contacts() as u64, created);
}

#[tokio::test(start_paused = true)]
async fn a_run_below_the_share_of_rejects_goes_on_to_its_end() {
    let world = World::new(&contacts("abort_if_rejected: 20%"));
    let mut file = String::from("email,firstname\n");
    for number in 0..3_000 {
        // The first rows are all wrong, before the share is judged.
        let email = if number < 100 || number % 10 == 0 { WRONG.to_owned() } else { format!("p{number}@x.io") };
        file.push_str(&format!("{email},Ada\n"));
    }
    let ran = import_into(world, file).await;
    assert_eq!((ran.report.outcome, ran.counts()), (Outcome::Done, (3_000, 2_610, 390)));
    assert_eq!(ran.contacts(), 2_610);
}

#[tokio::test(start_paused = true)]
async fn the_same_address_in_other_case_is_one_record_and_the_later_row_wins() {
    let ran = import("email,firstname,lastname\nADA@x.io,Ada,Byron\nb@x.io,Bea,B\nada@X.IO,,Lovelace\n").await;
    assert_eq!((ran.report.rows.created, ran.report.rows.merged), (2, 1));
    assert_eq!(ran.contact("ada@x.io", "firstname").as_deref(), Some("Ada"), "a blank cell keeps");
    assert_eq!(ran.contact("ada@x.io", "lastname").as_deref(), Some("Lovelace"));
}

#[tokio::test(start_paused = true)]
async fn a_blank_key_is_a_reject_of_its_own() {
    let ran = import("email,firstname\n ,Ada\nb@x.io,Bea\n").await;
    assert_eq!((ran.counts(), ran.codes()), ((2, 1, 1), vec![(2, "KEY_BLANK")]));
}
