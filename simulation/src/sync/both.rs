//! A simulated portal and a simulated org with a sync between them, and what is seen of the two.

use std::{cell::Cell, collections::BTreeMap, fmt::Write as _, rc::Rc, time::Duration};

use hubferry::{
    clock::Clock as _,
    report::{Outcome, Report, SyncReport},
    state::Value as Attribute,
    sync::model::{Refused, Review, ReviewKind},
};
use hubferry_simulator::{
    hubspot::{self, PortalSettings, PropertyDefinition},
    salesforce::{self, Field, FieldType, OrgSettings},
};
use serde_json::{Value, json};

use crate::world::{World, report};

/// The sync of most tests.
pub const PEOPLE: &str = "people";

/// Pairs of fields of contacts and `Contact`, each of another type or under another rule.
pub const EMAIL: &str = "{ hubspot: email, salesforce: Email, rule: two_way }";
/// A name that Salesforce leads.
pub const FIRST: &str = "{ hubspot: firstname, salesforce: FirstName, rule: prefer_salesforce_unless_blank }";
/// A name that both lead.
pub const LAST: &str = "{ hubspot: lastname, salesforce: LastName, rule: two_way }";
/// Salesforce alone leads.
pub const TITLE: &str = "{ hubspot: jobtitle, salesforce: Title, rule: always_salesforce }";
/// A number.
pub const PHONE: &str = "{ hubspot: phone, salesforce: Phone, rule: two_way }";
/// HubSpot leads.
pub const SCORE: &str = "{ hubspot: score, salesforce: Score__c, rule: prefer_hubspot_unless_blank }";
/// A day that HubSpot alone leads.
pub const SINCE: &str = "{ hubspot: member_since, salesforce: Member_Since__c, rule: always_hubspot }";
/// Several of some.
pub const INTERESTS: &str = "{ hubspot: interests, salesforce: Interests__c, rule: two_way }";
/// One of some, called otherwise on either side.
pub const SOURCE: &str = "{ hubspot: source, salesforce: LeadSource, rule: two_way, on_conflict: salesforce, values: { Web: web, Phone Inquiry: phone, Partner Referral: partner, Other: other } }";
/// A box.
pub const OPT_OUT: &str = "{ hubspot: optout, salesforce: HasOptedOutOfEmail, rule: two_way, on_conflict: hubspot }";
/// A moment.
pub const SEEN: &str = "{ hubspot: last_seen, salesforce: Last_Seen__c, rule: two_way, on_conflict: latest }";
/// A longer text.
pub const BIO: &str = "{ hubspot: bio, salesforce: Description, rule: two_way }";
/// Who made the record: by it the tests find a record that exists twice.
pub const ORIGIN: &str = "{ hubspot: origin, salesforce: Origin__c, rule: two_way }";

/// All of them.
pub const FIELDS: [&str; 13] =
    [EMAIL, FIRST, LAST, TITLE, PHONE, SCORE, SINCE, INTERESTS, SOURCE, OPT_OUT, SEEN, BIO, ORIGIN];

/// Limits that stand in no test's way.
pub const WIDE: &str = "limits: { creates: 100000, updates: 100000, blanks: 100000, deletes: 100000 }";

/// `hubferry.yaml` with one account, one org and syncs.
pub struct Config {
    text: String,
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// Without any sync.
    pub fn new() -> Self {
        let text = "version: 1\nhubspot:\n  default: { secret: hubferry/hubspot }\nsalesforce:\n  default: { secret: hubferry/salesforce }\ndata: s3://crm/\nsyncs:\n";
        Self { text: text.to_owned() }
    }

    /// Adds a sync; `more` is appended to it.
    pub fn sync(mut self, name: &str, objects: (&str, &str), fields: &[&str], more: &str) -> Self {
        let (hubspot, salesforce) = objects;
        let _ = write!(
            self.text,
            "  - name: {name}\n    hubspot_object: {hubspot}\n    salesforce_object: {salesforce}\n    fields:\n"
        );
        for field in fields {
            let _ = writeln!(self.text, "      - {field}");
        }
        for line in more.lines() {
            let _ = writeln!(self.text, "    {line}");
        }
        self
    }

    /// Contacts and `Contact` with these pairs.
    pub fn people(fields: &[&str], more: &str) -> String {
        Self::new().sync(PEOPLE, ("contacts", "Contact"), fields, more).text()
    }

    /// Companies and `Account`.
    pub fn companies(self, more: &str) -> Self {
        let fields = [
            "{ hubspot: name, salesforce: Name, rule: two_way }",
            "{ hubspot: domain, salesforce: Domain__c, rule: two_way }",
            "{ hubspot: phone, salesforce: Phone, rule: two_way }",
            "{ hubspot: numberofemployees, salesforce: NumberOfEmployees, rule: prefer_salesforce_unless_blank }",
        ];
        self.sync("companies", ("companies", "Account"), &fields, more)
    }

    /// Deals and `Opportunity`.
    pub fn deals(self, more: &str) -> Self {
        let fields = [
            "{ hubspot: dealname, salesforce: Name, rule: two_way }",
            "{ hubspot: amount, salesforce: Amount, rule: two_way }",
            "{ hubspot: closedate, salesforce: CloseDate, rule: two_way }",
            "{ hubspot: dealstage, salesforce: StageName, rule: two_way, values: { Prospecting: appointmentscheduled, Qualification: qualifiedtobuy, Negotiation/Review: contractsent, Closed Won: closedwon, Closed Lost: closedlost } }",
        ];
        self.sync("deals", ("deals", "Opportunity"), &fields, more)
    }

    /// Contacts and `Lead`.
    pub fn leads(self, more: &str) -> Self {
        let fields = [
            EMAIL,
            "{ hubspot: firstname, salesforce: FirstName, rule: two_way }",
            LAST,
            PHONE,
            "{ hubspot: company, salesforce: Company, rule: two_way }",
        ];
        self.sync("leads", ("contacts", "Lead"), &fields, more)
    }

    /// The text of the file.
    pub fn text(self) -> String {
        self.text
    }
}

/// A portal with the properties of the pairs, and the ones for the other side's ids.
pub fn portal_settings() -> PortalSettings {
    let mut settings = PortalSettings::default();
    settings.latency.fixed_ms = 10;
    let option = PropertyDefinition::new;
    let own = vec![
        option("score", "number"),
        option("member_since", "date"),
        option("interests", "enumeration").options(&["cycling", "music", "chess", "tea"]).several(),
        option("source", "enumeration").options(&["web", "phone", "partner", "other"]),
        option("optout", "bool").options(&["true", "false"]),
        option("last_seen", "datetime"),
        option("bio", "string"),
        option("origin", "string"),
        option("nickname", "string"),
        option("sf_contact_id_ext", "string").unique(),
        option("sf_lead_id_ext", "string").unique(),
    ];
    settings.properties.insert("contacts".to_owned(), own);
    settings.properties.insert("companies".to_owned(), vec![option("sf_account_id_ext", "string").unique()]);
    settings.properties.insert("deals".to_owned(), vec![option("sf_opportunity_id_ext", "string").unique()]);
    settings
}

/// An org with the fields of the pairs, and the ones for the other side's ids.
pub fn org_settings() -> OrgSettings {
    let mut settings = OrgSettings { latency_ms: 10, ..OrgSettings::default() };
    let contact = |field: Field| ("Contact".to_owned(), field);
    settings.fields.extend([
        contact(Field::number("Score__c", FieldType::Double, 8, 2)),
        contact(Field::new("Member_Since__c", FieldType::Date)),
        contact(Field {
            kind: FieldType::MultiPicklist,
            ..Field::picklist("Interests__c", &["cycling", "music", "chess", "tea"], true)
        }),
        contact(Field::new("Last_Seen__c", FieldType::DateTime)),
        contact(Field::text("Origin__c", 80)),
        contact(Field::text("Nickname__c", 80)),
        ("Account".to_owned(), Field::text("Domain__c", 120)),
    ]);
    settings
}

/// A portal, an org and a sync between them.
pub struct Both {
    /// All else.
    pub world: World,
    /// Seconds that an invocation has.
    pub seconds: Cell<i64>,
    /// The simulators' logs of calls were looked at so far.
    told: Cell<(usize, usize)>,
}

impl Both {
    /// The people's sync with these pairs; `more` is appended to it.
    pub fn people(fields: &[&str], more: &str) -> Self {
        Self::new(&Config::people(fields, more))
    }

    /// A portal and an org as they are, with this configuration.
    pub fn new(config: &str) -> Self {
        Self::with(config, portal_settings(), org_settings())
    }

    /// A portal and an org that are like this.
    pub fn with(config: &str, portal: PortalSettings, org: OrgSettings) -> Self {
        let world = World::with_org(config, portal, org);
        world.portal.borrow_mut().keep_history();
        Self { world, seconds: Cell::new(900), told: Cell::default() }
    }

    /// The file is changed.
    pub fn configure(&mut self, config: &str) {
        self.world.config = Rc::new(hubferry::config::load::parse(config, "hubferry.yaml").unwrap());
    }

    /// Lets so much time pass.
    pub async fn wait(&self, seconds: u64) {
        self.world.clock.sleep(Duration::from_secs(seconds)).await;
        let now = self.world.clock.now();
        self.world.portal.borrow_mut().run_workflows(now);
        self.world.org.borrow_mut().run_automation(self.world.org_now());
    }

    /// One run, a minute later, over as many invocations as it takes.
    pub async fn sync(&self, name: &str) -> Report {
        self.wait(60).await;
        self.run(name).await
    }

    /// One run, now, over as many invocations as it takes.
    pub async fn run(&self, name: &str) -> Report {
        self.world.queue.take();
        let first = self.world.handle_within(json!({ "job": "sync", "name": name }), self.seconds.get()).await;
        self.finish(report(first.unwrap())).await
    }

    /// One run that must end well.
    pub async fn done(&self, name: &str) -> Report {
        let report = self.sync(name).await;
        assert_eq!(report.outcome, Outcome::Done, "{}", brief(&report));
        report
    }

    /// Goes on with a run until it is over.
    pub async fn finish(&self, mut last: Report) -> Report {
        for _ in 0..500 {
            if last.outcome.is_final() {
                return last;
            }
            let messages = self.world.queue.take();
            if messages.is_empty() {
                // It waits for longer than a message may: the sweep finds it.
                self.world.clock.sleep(Duration::from_secs(300)).await;
                last = self.world.resume().await.pop().unwrap_or(last);
            }
            for (body, delay) in messages {
                self.world.clock.sleep(Duration::from_secs(delay.into())).await;
                let event = serde_json::from_str(&body).unwrap();
                last = report(self.world.handle_within(event, self.seconds.get()).await.unwrap());
            }
        }
        panic!("the run does not end: {last:#?}");
    }

    /// A run that is killed after so much time; its report, if it ended before.
    pub async fn sync_until_killed(&self, name: &str, after: Duration) -> Option<Report> {
        let event = json!({ "job": "sync", "name": name });
        self.world.handle_until_killed(event, after).await.map(report)
    }

    /// A person creates a contact in HubSpot.
    pub fn h_create(&self, values: &[(&str, &str)]) -> String {
        self.h_create_as("contacts", values)
    }

    /// A person creates a record in HubSpot.
    pub fn h_create_as(&self, object: &str, values: &[(&str, &str)]) -> String {
        self.world.portal.borrow_mut().create_record(self.world.clock.now(), object, values).unwrap()
    }

    /// A person creates a contact in Salesforce.
    pub fn s_create(&self, values: &[(&str, &str)]) -> String {
        self.s_create_as("Contact", values)
    }

    /// A person creates a record in Salesforce.
    pub fn s_create_as(&self, object: &str, values: &[(&str, &str)]) -> String {
        self.world.org.borrow_mut().create(self.world.org_now(), object, values).unwrap()
    }

    /// A person edits a contact in HubSpot; an empty text clears.
    pub fn h_edit(&self, id: &str, values: &[(&str, &str)]) {
        assert!(self.world.portal.borrow_mut().edit(self.world.clock.now(), "contacts", id, values), "{id}");
    }

    /// A person edits a contact in Salesforce; an empty text clears.
    pub fn s_edit(&self, id: &str, values: &[(&str, &str)]) {
        self.world.org.borrow_mut().edit(self.world.org_now(), "Contact", id, values).unwrap();
    }

    /// A property of a contact in HubSpot; blank is `None`.
    pub fn h(&self, id: &str, property: &str) -> Option<String> {
        self.h_of("contacts", id, property)
    }

    /// A property of a record in HubSpot; blank is `None`.
    pub fn h_of(&self, object: &str, id: &str, property: &str) -> Option<String> {
        self.world.portal.borrow().find_by(object, "hs_object_id", id)?.get(property).cloned()
    }

    /// A field of a contact in Salesforce; blank is `None`.
    pub fn s(&self, id: &str, field: &str) -> Option<String> {
        self.s_of("Contact", id, field)
    }

    /// A field of a record in Salesforce; blank is `None`.
    pub fn s_of(&self, object: &str, id: &str, field: &str) -> Option<String> {
        self.world.org.borrow().look(object, id)?.get(field).cloned()
    }

    /// A contact that lives in HubSpot.
    pub fn h_lives(&self, id: &str) -> bool {
        self.h(id, "hs_object_id").as_deref() == Some(id)
    }

    /// A contact that lives in Salesforce.
    pub fn s_lives(&self, id: &str) -> bool {
        self.s(id, "IsDeleted").as_deref() == Some("false")
    }

    /// Contacts that live in HubSpot.
    pub fn h_count(&self) -> usize {
        self.world.portal.borrow().record_count("contacts")
    }

    /// Contacts that live in Salesforce.
    pub fn s_count(&self) -> usize {
        self.world.org.borrow().live_records("Contact").count()
    }

    /// The contact in HubSpot that says it is this one of Salesforce.
    pub fn h_twin(&self, salesforce: &str) -> Option<String> {
        let twin = self.world.portal.borrow().find_by("contacts", "sf_contact_id_ext", salesforce)?;
        twin.get("hs_object_id").cloned()
    }

    /// The contact in Salesforce that says it is this one of HubSpot.
    pub fn s_twin(&self, hubspot: &str) -> Option<String> {
        self.world.org.borrow().find_by("Contact", "HubSpot_Contact_Id__c", hubspot)?.get("Id").cloned()
    }

    /// A contact that is linked: made in Salesforce, and by a run in HubSpot. Its ids in HubSpot and in Salesforce.
    pub async fn linked(&self, values: &[(&str, &str)]) -> (String, String) {
        let s = self.s_create(values);
        self.done(PEOPLE).await;
        let h = self.h_twin(&s).unwrap();
        assert_eq!(self.s_twin(&h).as_deref(), Some(s.as_str()), "the ids do not point at each other");
        (h, s)
    }

    /// The reviews that wait.
    pub fn reviews(&self) -> Vec<Review> {
        self.items("review#", |_| true)
    }

    /// Kinds of the reviews that wait, sorted.
    pub fn review_kinds(&self) -> Vec<ReviewKind> {
        let mut kinds: Vec<ReviewKind> = self.reviews().iter().map(|review| review.kind).collect();
        kinds.sort();
        kinds
    }

    /// What is refused.
    pub fn refused(&self) -> Vec<Refused> {
        // One item a record, in it one entry a field.
        self.items("refused#", |_: &Vec<Refused>| true).into_iter().flatten().collect()
    }

    fn items<T: serde::de::DeserializeOwned>(&self, prefix: &str, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let all = self.world.table.snapshot();
        let json = |item: &BTreeMap<String, Attribute>| match item.get("json") {
            Some(Attribute::S(text)) => serde_json::from_str::<T>(text).unwrap(),
            other => panic!("an item without JSON: {other:?}"),
        };
        all.iter().filter(|(key, _)| key.pk.starts_with(prefix)).map(|(_, item)| json(item)).filter(wanted).collect()
    }

    /// The links as they are stored: HubSpot's id, Salesforce's id.
    pub fn links(&self) -> Vec<(String, String)> {
        let all = self.world.table.snapshot();
        let of = |item: &BTreeMap<String, Attribute>| {
            let Some(Attribute::S(text)) = item.get("json") else { return None };
            let link: hubferry::sync::model::Link = serde_json::from_str(text).ok()?;
            // A pair that is gone is remembered, should it be brought back.
            let is_gone = link.status == hubferry::sync::model::Status::Gone;
            (!is_gone).then(|| (link.hubspot_id, link.salesforce_id.to_string()))
        };
        all.iter()
            .filter(|(key, _)| key.pk.starts_with("link#") && key.pk.contains("#h#"))
            .filter_map(|(_, item)| of(item))
            .collect()
    }

    /// Forgets what the simulators were told so far, for [`Both::writes`].
    pub fn mark(&self) {
        self.told.set((self.world.portal.borrow().log().len(), self.world.org.borrow().log().len()));
    }

    /// Calls since [`Both::mark`]: to HubSpot, to Salesforce; sign-ins not counted.
    pub fn calls(&self) -> (usize, usize) {
        let (hubspot, salesforce) = self.told.get();
        let calls = |path: &&salesforce::LogEntry| !path.path.contains("/oauth2/");
        (
            self.world.portal.borrow().log().iter().skip(hubspot).count(),
            self.world.org.borrow().log().iter().skip(salesforce).filter(calls).count(),
        )
    }

    /// Calls since [`Both::mark`] that write, as `METHOD path`: to HubSpot, to Salesforce.
    pub fn writes(&self) -> (Vec<String>, Vec<String>) {
        let (hubspot, salesforce) = self.told.get();
        let portal = self.world.portal.borrow();
        let org = self.world.org.borrow();
        let hubspot = portal.log().iter().skip(hubspot).filter(|call| hubspot_writes(call));
        let salesforce = org.log().iter().skip(salesforce).filter(|call| salesforce_writes(call));
        (
            hubspot.map(|call| format!("{} {}", call.method, call.path)).collect(),
            salesforce.map(|call| format!("{} {}", call.method, call.path)).collect(),
        )
    }

    /// Values that clients have written in HubSpot so far: record, property, new value.
    pub fn h_written(&self) -> Vec<(String, String, Option<String>)> {
        let portal = self.world.portal.borrow();
        let ours = portal.history().iter().filter(|write| write.by == hubspot::Writer::Api);
        ours.flat_map(|write| write.changes.iter().map(|(name, _, new)| (write.id.clone(), name.clone(), new.clone())))
            .collect()
    }

    /// Values that clients have written in Salesforce so far: record, field, new value.
    pub fn s_written(&self) -> Vec<(String, String, Option<String>)> {
        let org = self.world.org.borrow();
        let ours = org.history().iter().filter(|write| !write.by_person);
        ours.flat_map(|write| write.changes.iter().map(|(name, _, new)| (write.id.clone(), name.clone(), new.clone())))
            .collect()
    }

    /// Three further runs write nothing.
    pub async fn assert_quiet(&self, name: &str) {
        for run in 1..=3 {
            self.wait(900).await;
            self.mark();
            let report = self.done(name).await;
            let writes = self.writes();
            assert!(
                writes.0.is_empty() && writes.1.is_empty(),
                "quiet run {run} writes: {writes:?}\n{}",
                brief(&report)
            );
            assert_eq!(report.rows.created + report.rows.updated, 0, "quiet run {run}: {}", brief(&report));
        }
    }
}

/// What of a report tells why a test failed.
pub fn brief(report: &Report) -> String {
    let Report { outcome, rows, rejected_by_code, calls, sync, error, notes, .. } = report;
    format!("{outcome:?} {rows:?} {rejected_by_code:?} {calls:?} {sync:?} {error:?} {notes:?}")
}

/// What a sync's report says of it.
pub fn told(report: &Report) -> &SyncReport {
    report.sync.as_ref().unwrap()
}

/// Whether a call to HubSpot changes anything.
pub fn hubspot_writes(call: &hubspot::LogEntry) -> bool {
    let reads = ["/search", "/batch/read"];
    call.method != "GET" && !call.path.contains("/oauth/") && !reads.iter().any(|end| call.path.ends_with(end))
}

/// Whether a call to Salesforce changes anything.
pub fn salesforce_writes(call: &salesforce::LogEntry) -> bool {
    let retrieves = call.method == "POST"
        && call.path.rsplit_once("/composite/sobjects/").is_some_and(|(_, object)| !object.contains('/'));
    call.method != "GET" && !call.path.contains("/oauth2/") && !call.path.contains("/jobs/query") && !retrieves
}

/// The events that a function gets.
pub fn event(name: &str) -> Value {
    json!({ "job": "sync", "name": name })
}
