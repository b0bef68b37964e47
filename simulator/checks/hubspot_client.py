"""Drives the simulator through HubSpot's official Python client.

    pip install hubspot-api-client
    hubspot-simulator --port 8801 --burst 60 &
    python hubspot_client.py http://127.0.0.1:8801 TOKEN

The simulator's account must be fresh. The last check exhausts the burst limit, so it needs `--burst` below 190.
Prints "N passed, N failed"; exits with 1 if any failed.
"""

import sys
import time

from hubspot import HubSpot
from hubspot.crm import companies, contacts, properties
from hubspot.crm.contacts import (
    BatchInputSimplePublicObjectBatchInputUpsert as Upserts,
    BatchReadInputSimplePublicObjectId as Reads,
    PublicObjectSearchRequest,
    SimplePublicObjectBatchInputUpsert as Upsert,
    SimplePublicObjectId,
    SimplePublicObjectInput,
    SimplePublicObjectInputForCreate as Create,
)


def main(base_url, token):
    client = HubSpot(access_token=token)
    parts = (
        client.crm.contacts.basic_api,
        client.crm.contacts.batch_api,
        client.crm.contacts.search_api,
        client.crm.companies.basic_api,
        client.crm.properties.core_api,
        client.crm.owners.owners_api,
        client.crm.pipelines.pipelines_api,
        client.crm.associations.v4.basic_api,
        client.crm.associations.v4.batch_api,
    )
    for part in parts:
        part.api_client.configuration.host = base_url
    (people, batches, searches, firms, definitions, owner_api, pipeline_api, links, link_batches) = parts
    passed = failed = 0

    def check(name, run):
        nonlocal passed, failed
        try:
            run()
            passed += 1
        except Exception as error:  # a check may fail in any way
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {str(error)[:400]}")

    ids = {}

    def create():
        made = people.create(Create(properties={"email": "Check@Example.com", "firstname": "Check"}))
        assert made.properties["email"] == "check@example.com", made
        ids["contact"] = made.id

    def conflict():
        try:
            people.create(Create(properties={"email": "check@example.com"}))
        except contacts.ApiException as error:
            assert error.status == 409 and ids["contact"] in error.body, error
        else:
            raise AssertionError("a second contact with the same email was created")

    def upserts():
        rows = [
            Upsert(id=f"u{n}@example.com", id_property="email", properties={"email": f"u{n}@example.com"},
                   object_write_trace_id=str(n))
            for n in range(100)
        ]
        answer = batches.upsert(Upserts(inputs=rows))
        assert len(answer.results) == 100 and all(one.new for one in answer.results)

    def partial():
        rows = [
            Upsert(id="good@example.com", id_property="email", properties={"email": "good@example.com"},
                   object_write_trace_id="good"),
            Upsert(id="bad", id_property="email", properties={"email": "bad"}, object_write_trace_id="bad"),
        ]
        answer = batches.upsert(Upserts(inputs=rows))
        assert answer.num_errors == 1 and len(answer.results) == 1, answer
        assert answer.errors[0].context["objectWriteTraceId"] == ["bad"], answer

    def read():
        wanted = Reads(id_property="email", properties=["email"], properties_with_history=[],
                       inputs=[SimplePublicObjectId(id="u1@example.com")])
        assert batches.read(wanted).results[0].properties["email"] == "u1@example.com"

    def update():
        people.update(ids["contact"], SimplePublicObjectInput(properties={"firstname": "Changed"}))
        got = people.get_by_id("check@example.com", id_property="email", properties=["firstname"])
        assert got.properties["firstname"] == "Changed", got

    def listing():
        page = people.get_page(limit=100)
        assert len(page.results) == 100 and page.paging.next.after, page.paging

    def search():
        wanted = PublicObjectSearchRequest(
            filter_groups=[{"filters": [{"propertyName": "email", "operator": "EQ", "value": "u7@example.com"}]}],
            properties=["email"], sorts=["hs_object_id"], limit=10, after="0")
        answer = searches.do_search(wanted)
        assert answer.total == 1 and answer.results[0].properties["email"] == "u7@example.com", answer

    def define():
        definitions.create("contacts", properties.PropertyCreate(
            name="check_id", label="Check", type="string", field_type="text", group_name="contactinformation",
            has_unique_value=True))
        time.sleep(0.8)
        assert definitions.get_by_name("contacts", "check_id").has_unique_value
        names = {one.name for one in definitions.get_all("contacts").results}
        assert {"email", "check_id"} <= names

    def associate():
        firm = firms.create(companies.SimplePublicObjectInputForCreate(properties={"name": "Check Ltd"}))
        links.create_default("contacts", ids["contact"], "companies", firm.id)
        found = links.get_page("contacts", ids["contact"], "companies").results
        assert str(found[0].to_object_id) == firm.id, found
        assert 279 in {one.type_id for one in found[0].association_types}, found

    def owner():
        assert owner_api.get_page().results[0].email

    def stages():
        found = pipeline_api.get_all("deals").results
        assert found[0].stages[0].id == "appointmentscheduled", found

    def archive():
        people.archive(ids["contact"])
        try:
            people.get_by_id(ids["contact"])
        except contacts.ApiException as error:
            assert error.status == 404, error
        else:
            raise AssertionError("an archived contact could be read")

    def throttle():
        for _ in range(200):
            try:
                people.get_page(limit=1)
            except contacts.ApiException as error:
                assert error.status == 429 and "TEN_SECONDLY_ROLLING" in error.body, error
                return
        raise AssertionError("200 calls at once and no 429")

    for name, run in (
        ("create", create), ("conflict", conflict), ("upsert", upserts), ("partial failure", partial),
        ("batch read", read), ("update", update), ("list", listing), ("search", search), ("properties", define),
        ("associations", associate), ("owners", owner), ("pipelines", stages), ("archive", archive),
        ("rate limit", throttle),
    ):
        check(name, run)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
